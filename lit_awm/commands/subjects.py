"""Fit every family of world models to the same experience, by one recipe."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor
from torchrl.envs import TransformedEnv

from lit_awm.analysis import Setting, Subject
from lit_awm.checks import did_you_mean
from lit_awm.commands.checkpoint import load_run
from lit_awm.data import ExperienceDataModule
from lit_awm.envs import KnownReward, KnownStep, make_env
from lit_awm.envs.factory import describe_options, make_system
from lit_awm.models import Policy, SimulatorWorldModel, WorldModel
from lit_awm.modules import AlternatingModule
from lit_awm.recipes import FAMILIES, build, make_trainer, options_of

FITTED_FAMILIES = [family for family in FAMILIES if family != "simulator"]  # which is always there, as the truth
DEFAULT_FAMILIES = "actions,actions_gru,history,history_cut,markov"


class Experiment(NamedTuple):
    """Subjects and what they are examined with."""

    env: TransformedEnv
    subjects: list[Subject]
    setting: Setting


def make_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser of what commands that compare families have in common."""
    parser = argparse.ArgumentParser(
        prog=f"lit-awm {name}",
        description=description,
        epilog="All further options are those of the recipe, as for `lit-awm fit`: for example "
        "`--config hiv_treatment` or `--data.env van_der_pol`.",
    )
    parser.add_argument("--ckpt", type=Path, help="examine the world model and policy of a checkpoint, not fresh ones")
    parser.add_argument(
        "--families",
        default=DEFAULT_FAMILIES,
        help=f"which to compare, of {', '.join(FITTED_FAMILIES)} (default: {DEFAULT_FAMILIES})",
    )
    parser.add_argument("--states", type=int, default=16, help="number of initial states (default: 16)")
    parser.add_argument(
        "--initial-spread",
        type=float,
        default=0.1,
        help="relative half-width of the interval from which they are drawn (default: 0.1)",
    )
    parser.add_argument("--out", type=Path, help="folder to write to (default: runs/ENVIRONMENT)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


def parse_list(parser: argparse.ArgumentParser, text: str, name: str, known: Sequence[str]) -> list[str]:
    """Return the words of a list with commas; an unknown one is an error of usage."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in known:
            parser.error(f"{name} must be of {', '.join(known)}, got {word!r}.{did_you_mean(word, known)}")
    if not words:
        parser.error(f"{name} must not be empty.")
    return words


def parse_horizons(parser: argparse.ArgumentParser, text: str) -> list[int]:
    """Return a list of horizons in ascending order; anything else is an error of usage."""
    try:
        horizons = sorted({int(word) for word in text.split(",")})
    except ValueError:
        parser.error(f"horizons must be whole numbers with commas between them, got {text!r}.")
    if horizons[0] < 1:
        parser.error(f"horizons must be at least 1, got {horizons[0]}.")
    return horizons


def prepare(options: argparse.Namespace, recipe: list[str], horizons: list[int]) -> Experiment:
    """Fit the families that are asked for, or load a checkpoint.

    Raises:
        ValueError: If an option is out of its range, or a horizon beyond the checkpoint's episodes.
    """
    if options.states < 1:
        raise ValueError(f"states must be at least 1, got {options.states}.")
    if options.ckpt is not None:
        return _from_checkpoint(options, recipe, horizons)
    _, data = build(recipe)
    env_options = _options_of_length(data, max(horizons))
    stretched = [*recipe, f"--data.episode_length={max(horizons)}", f"--data.env_options={yaml.safe_dump(env_options)}"]
    subjects, policy = [], None
    for family in options.families:
        module, data = build([*stretched, *options_of(family, max(horizons))])
        fresh = copy.deepcopy(module.world_model.world_model)
        make_trainer(progress=not options.json).fit(module.world_model, data)
        fitted = module.world_model.world_model
        scalers = {name: value for name, value in fitted.state_dict().items() if "scaler" in name}
        fresh.load_state_dict(scalers, strict=False)
        if policy is None:
            module.policy.adopt_statistics()
            policy = module.policy.policy
        subjects += [Subject(family, True, fitted), Subject(family, False, fresh)]
    assert policy is not None
    return _examine(options, subjects, policy, data, env_options, horizons, module.policy.policy_input_gradient)


def _options_of_length(data: ExperienceDataModule, length: int) -> dict[str, Any]:
    """Return options of the environment for episodes of another length, in steps as long as the recipe's."""
    options = dict(data.env_options)
    base = data.env.base_env
    if length != data.env.episode_length and hasattr(base, "dt") and not getattr(base, "is_discrete", False):
        options.pop("duration", None)
        options["dt"] = base.dt
    return options


def _from_checkpoint(options: argparse.Namespace, recipe: list[str], horizons: list[int]) -> Experiment:
    if recipe:
        raise ValueError(f"a checkpoint brings its own recipe; leave out {' '.join(recipe)}.")
    module, data, _, _ = load_run(options.ckpt)
    if not isinstance(module, AlternatingModule):
        raise ValueError(f"checkpoint must hold an AlternatingModule, got {type(module).__name__}.")
    if max(horizons) > data.env.episode_length:
        raise ValueError(
            f"horizons must be at most the checkpoint's {data.env.episode_length} steps, got {max(horizons)}."
        )
    subject = Subject(type(module.world_model.world_model).__name__, True, module.world_model.world_model)
    policy, share = module.policy.policy, module.policy.policy_input_gradient
    return _examine(options, [subject], policy, data, data.env_options, horizons, share)


def _examine(
    options: argparse.Namespace,
    subjects: list[Subject],
    policy: Policy,
    data: ExperienceDataModule,
    env_options: dict[str, Any],
    horizons: list[int],
    policy_input_gradient: float,
) -> Experiment:
    """Put together, in float64, what the subjects are examined with."""
    name, length = data.env_name, data.env.episode_length
    is_known = KnownReward.is_known(data.env)
    spread = {"initial_spread": options.initial_spread} if is_known and "initial_spread" not in env_options else {}
    precise: dict[str, Any] = {"dtype": torch.float64} if is_known else {}
    env = make_env(name, options.states, episode_length=length, **(env_options | spread | precise))
    reward_fns = None
    truth: WorldModel | None = None
    if is_known:
        system_options = {key: value for key, value in env_options.items() if key in describe_options(name)}
        tasks = {h: make_system(name, episode_length=h, **_of_length(system_options, env, h)) for h in horizons}
        if subjects[0].world_model.reward_fn is not None:
            reward_fns = {h: KnownReward(env, task).double() for h, task in tasks.items()}
        if KnownStep.is_known(env):
            truth = SimulatorWorldModel(data.state_dim, data.action_dim, KnownStep(env).double())
    scale: Tensor = subjects[0].world_model.state_scaler.scale.double()
    for subject in subjects:
        subject.world_model.double().requires_grad_(False)
    initial_state = env.reset()["observation"].double()
    setting = Setting(policy.double(), initial_state, scale, truth, reward_fns, policy_input_gradient)
    return Experiment(env, subjects, setting)


def _of_length(options: dict[str, Any], env: TransformedEnv, length: int) -> dict[str, Any]:
    if length == env.episode_length or getattr(env.base_env, "is_discrete", False):
        return options
    return {key: value for key, value in options.items() if key != "duration"} | {"dt": env.base_env.dt}
