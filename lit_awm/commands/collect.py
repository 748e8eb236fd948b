"""``lit-awm collect``: record what a policy does in an environment."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDictBase
from torchrl.envs import TransformedEnv
from tqdm import tqdm

from lit_awm.checks import check_count, check_writable
from lit_awm.commands.checkpoint import load_run
from lit_awm.commands.output import print_result
from lit_awm.data import ExperienceDataModule
from lit_awm.data.collectors import EpisodeCollector
from lit_awm.data.exploration import Exploration
from lit_awm.data.formats import WRITERS, check_format, write_rows
from lit_awm.data.minari_datasets import MINARI
from lit_awm.envs import make_env
from lit_awm.envs.control import ControlEnv
from lit_awm.models import Policy
from lit_awm.recipes import build

RANDOM, AT_ONCE = "random", 100


def main(arguments: list[str]) -> int:
    """Record episodes in the environment of a recipe, and write them to a file for other programs."""
    parser = argparse.ArgumentParser(
        prog="lit-awm collect",
        allow_abbrev=False,
        description=main.__doc__,
        epilog="All further options are those of the recipe, as for `lit-awm fit`: `--config harvest`, "
        "`--data.env_options.observation_noise 0.01`. A checkpoint brings its own recipe.",
    )
    parser.add_argument("--policy", default=RANDOM, help="a checkpoint, or random (default)")
    parser.add_argument("--episodes", type=int, default=100, help="how many (default: 100)")
    parser.add_argument("--noise", type=float, default=0.0, help="standard deviation of noise on a policy's actions")
    parser.add_argument("--seed", type=int, default=0, help="seed of the environment and the actions (default: 0)")
    parser.add_argument(
        "--out", type=Path, required=True, help=f"file to write, ending in {', '.join(WRITERS)}, or minari:NAME"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options, recipe = parser.parse_known_args(arguments)
    try:
        result = collect(options, recipe)
    except ValueError as error:
        parser.error(str(error))
    print_result(result, options.json)
    return 0


def collect(options: argparse.Namespace, recipe: list[str]) -> dict[str, object]:
    """Record and write, and return what was written.

    Raises:
        ValueError: If an option is out of its range; nothing is written then.
    """
    if options.episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {options.episodes}.")
    if options.noise < 0:
        raise ValueError(f"noise must be at least 0, got {options.noise}.")
    if options.noise and options.policy == RANDOM:
        raise ValueError(
            f"noise must be 0 for random actions, got {options.noise}. Leave it out, or name a checkpoint."
        )
    check_count(0, seed=options.seed)
    check_format(options.out)
    if not str(options.out).startswith(MINARI):
        check_writable(options.out.parent, "out")
    data, policy = _prepare(options.policy, recipe)
    exploration = Exploration(policy, data.action_dim, options.noise, data.mean_hold)
    exploration.at_random.fill_(policy is None)
    torch.manual_seed(options.seed)
    settings: dict[str, Any] = {"episode_length": data.env.episode_length, **data.env_options}

    def make(count: int) -> TransformedEnv:
        return make_env(data.env_name, count, **settings)

    is_ours = isinstance(data.env.base_env, ControlEnv)  # which are stepped together
    env = make(min(options.episodes, AT_ONCE)) if is_ours else data.env
    env.set_seed(options.seed)
    collector = EpisodeCollector("single", 1, env, make, exploration, env.episode_length, options.seed)
    rounds = math.ceil(options.episodes / env.batch_size[0])
    parts = [collector.collect(0) for _ in tqdm(range(rounds), unit="round", disable=options.json or rounds == 1)]
    steps, ends = _first_episodes(torch.cat([part.clone() for part in parts]), options.episodes)
    write_rows(options.out, steps, data.env.name)
    return {
        "env": data.env.name,
        "episodes": ends,
        "steps": len(steps),
        "return": steps["next", "reward"].sum().item() / ends,
        "out": str(options.out),
    }


def _first_episodes(rounds: TensorDictBase, count: int) -> tuple[TensorDictBase, int]:
    """Return the steps ``(N,)`` of the first episodes, and how many these are; what a round ends is cut off."""
    rounds["next", "done"][:, -1] = True
    steps = rounds.reshape(-1)
    ends = steps["next", "done"].flatten().cumsum(0)
    chosen = steps[ends - steps["next", "done"].flatten().int() < count]
    return chosen, int(chosen["next", "done"].sum())


def _prepare(policy: str, recipe: list[str]) -> tuple[ExperienceDataModule, Policy | None]:
    if policy == RANDOM:
        return build(recipe)[1], None
    if recipe:
        raise ValueError(f"a checkpoint brings its own recipe; leave out {' '.join(recipe)}.")
    run = load_run(Path(policy))
    return run.data, run.module.behaviour_policy.requires_grad_(False)
