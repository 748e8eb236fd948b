"""Fit every family of world models to the same experience, by one recipe."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torchrl.envs import TransformedEnv

from lit_awm.analysis import Setting, Subject
from lit_awm.checks import check_writable, did_you_mean
from lit_awm.commands.checkpoint import load_run
from lit_awm.commands.output import folder_to_write
from lit_awm.data import ExperienceDataModule
from lit_awm.envs import KnownReward, KnownStep, make_env
from lit_awm.envs.control import ControlEnv
from lit_awm.envs.factory import describe_options, make_system
from lit_awm.models import Policy, SimulatorWorldModel
from lit_awm.modules import AlternatingModule
from lit_awm.recipes import FAMILIES, build, fit, options_of

FITTED_FAMILIES = [family for family in FAMILIES if family != "simulator"]  # which is always there, as the truth
SPREAD = 0.1
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
        allow_abbrev=False,
        description=description,
        epilog="All further options are those of the recipe, as for `lit-awm fit`: for example "
        "`--config hiv_treatment` or `--data.env van_der_pol`.",
    )
    told = "examine the world model and policy of a checkpoint, not fresh ones"
    parser.add_argument("--ckpt", "--ckpt_path", type=Path, help=told)
    parser.add_argument(
        "--families",
        help=f"which to compare, of {', '.join(FITTED_FAMILIES)} (default: {DEFAULT_FAMILIES})",
    )
    parser.add_argument("--states", type=int, default=16, help="number of initial states (default: 16)")
    parser.add_argument(
        "--initial-spread",
        type=float,
        help=f"relative half-width of the interval from which they are drawn (default: {SPREAD})",
    )
    parser.add_argument("--out", type=folder_to_write, help="folder to write to (default: runs/ENVIRONMENT)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


def parse_list(parser: argparse.ArgumentParser, text: str, name: str, known: Sequence[str]) -> list[str]:
    """Return the words of a list with commas, each once; an unknown one is an error of usage."""
    words = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for word in words:
        if word not in known:
            parser.error(f"{name} must be of {', '.join(known)}, got {word!r}.{did_you_mean(word, known)}")
    if not words:
        parser.error(f"{name} must not be empty.")
    return words


def parse_families(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[str]:
    """Return the families to fit; with a checkpoint, which has its own, to name some is an error of usage."""
    if options.ckpt is not None and options.families is not None:
        parser.error(f"a checkpoint brings its own world model; leave out --families {options.families}.")
    return parse_list(parser, options.families or DEFAULT_FAMILIES, "families", FITTED_FAMILIES)


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
    if options.out is None:
        check_writable(Path("runs"), "out")
    if options.ckpt is not None:
        return _from_checkpoint(options, recipe, horizons)
    if trainer := [word for word in recipe if word.startswith("--trainer")]:
        raise ValueError(f"models are fitted by a fixed trainer on the CPU; leave out {' '.join(trainer)}.")
    _, data = build(recipe)
    env_options = _of_length(data.env_options, data.env, max(horizons))
    conditions = _make_conditions(options, data, env_options, horizons)
    too_long = [name for name in ("round_length", "slice_length") if getattr(data, name) > max(horizons)]
    stretched = [*recipe, *(f"--data.{name}=null" for name in too_long)]
    stretched += [f"--data.episode_length={max(horizons)}", f"--data.env_options={yaml.safe_dump(env_options)}"]
    subjects, policy = [], None
    for family in options.families:
        module, data = build([*stretched, *options_of(family, max(horizons))])
        fresh = copy.deepcopy(module.world_model.world_model)
        fit(module.world_model, data, gradient_clip_val=module.gradient_clip_val, progress=not options.json)
        fitted = module.world_model.world_model
        scalers = {name: value for name, value in fitted.state_dict().items() if "scaler" in name}
        fresh.load_state_dict(scalers, strict=False)
        if policy is None:
            module.policy.adopt_statistics()
            policy = module.policy.policy
        subjects += [Subject(family, True, fitted), Subject(family, False, fresh)]
    assert policy is not None
    return _examine(subjects, policy, conditions, module.policy.policy_input_gradient)


def _of_length(options: dict[str, Any], env: TransformedEnv, length: int) -> dict[str, Any]:
    """Return options of an environment for episodes of another length, in steps as long as those of ``env``."""
    base = env.base_env
    if length == env.episode_length or not isinstance(base, ControlEnv) or getattr(base, "is_discrete", False):
        return dict(options)
    return {key: value for key, value in options.items() if key != "duration"} | {"dt": base.dt}


class _Conditions(NamedTuple):
    env: TransformedEnv
    rewards: dict[int, KnownReward]
    step: KnownStep | None


def _make_conditions(
    options: argparse.Namespace, data: ExperienceDataModule, env_options: dict[str, Any], horizons: list[int]
) -> _Conditions:
    """Make, in float64, the environment of the longest horizon and, where they are known, rewards and step."""
    name, length = data.env_name, max(horizons) if options.ckpt is None else data.env.episode_length
    if not KnownReward.is_known(data.env):
        if options.initial_spread is not None:
            raise ValueError(
                f"initial-spread needs a system of the testbed, observed with a clock, got {name}. Leave it out."
            )
        return _Conditions(make_env(name, options.states, episode_length=length, **env_options), {}, None)
    drawn = {"initial_spread": SPREAD, **env_options}
    if options.initial_spread is not None:
        drawn["initial_spread"] = options.initial_spread
    env = make_env(name, options.states, episode_length=length, dtype=torch.float64, **drawn)
    of_system = {key: value for key, value in env_options.items() if key in describe_options(name)}
    rewards = {}
    for horizon in horizons:
        try:
            task = make_system(name, episode_length=horizon, **_of_length(of_system, env, horizon))
        except ValueError as error:
            raise ValueError(f"horizon {horizon} makes no task of {name}: {error}") from error
        rewards[horizon] = KnownReward(env, task).double()
    return _Conditions(env, rewards, KnownStep(env).double() if KnownStep.is_known(env) else None)


def _from_checkpoint(options: argparse.Namespace, recipe: list[str], horizons: list[int]) -> Experiment:
    if recipe:
        raise ValueError(f"a checkpoint brings its own recipe; leave out {' '.join(recipe)}.")
    module, data, _, _ = load_run(options.ckpt)
    if not isinstance(module, AlternatingModule):
        raise ValueError(f"checkpoint must hold an AlternatingModule, got {type(module).__name__}.")
    model = module.world_model.world_model
    longest = min(data.env.episode_length, model.max_horizon or data.env.episode_length)
    if max(horizons) > longest:
        raise ValueError(
            f"horizons must be at most {longest}, which is all that the checkpoint's model and episodes "
            f"have, got {max(horizons)}."
        )
    conditions = _make_conditions(options, data, data.env_options, horizons)
    subject = Subject(type(model).__name__, True, model)
    return _examine([subject], module.policy.policy, conditions, module.policy.policy_input_gradient)


def _examine(
    subjects: list[Subject], policy: Policy, conditions: _Conditions, policy_input_gradient: float
) -> Experiment:
    """Put together, in float64, what the subjects are examined with."""
    env, rewards, step = conditions
    model = subjects[0].world_model
    scale = model.state_scaler.scale.double()
    for subject in subjects:
        subject.world_model.double().requires_grad_(False)
    env.set_seed(0)
    initial_state = env.reset()["observation"].double()
    truth = None if step is None else SimulatorWorldModel(model.state_dim, model.action_dim, step)
    reward_fns = rewards if model.knows_reward and rewards else None
    setting = Setting(policy.double(), initial_state, scale, truth, reward_fns, policy_input_gradient)
    return Experiment(env, subjects, setting)
