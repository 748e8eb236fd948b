"""Our soft actor-critic beside that of Stable-Baselines3: ``python benchmarks/sac_parity.py [--seeds N] [--json]``.

Both learn the same systems from as many steps, of which the first twelve episodes are random, with the same learning
rate, batch, discount, width of networks, and one update for every later step. What else there is, each has its own:
activations, the entropy weight at first, and how it standardises (theirs by running statistics of observations and
rewards). Needs ``stable-baselines3``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium
import numpy as np
import torch
from tensordict import TensorDict

from lit_awm.envs import load_optimum, make_env
from lit_awm.studies.benchmark import STEPS, WARMUP, Job, round_down, run_whole_study

SYSTEMS = ("harvest", "simple_case")
EPISODES = round_down(5000)


class AsGymnasium(gymnasium.Env[Any, Any]):
    """One environment of ours with Gymnasium's interface.

    Args:
        name: The system.
        seed: Seed of its generator.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.env = make_env(name, 1, episode_length=STEPS)
        self.env.set_seed(seed)
        size, count = self.env.observation_spec["observation"].shape[-1], self.env.action_spec.shape[-1]
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (count,), np.float32)
        self._state: TensorDict

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; the seed is that of the constructor."""
        self._state = self.env.reset()
        return self._state["observation"][0].numpy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step; its end is a state like any other, as there is a clock."""
        self._state["action"] = torch.as_tensor(action, dtype=torch.float32).reshape(1, -1)
        rows = self.env.step(self._state)["next"]
        self._state = self.env.step_mdp(self._state)
        return rows["observation"][0].numpy(), rows["reward"].item(), bool(rows["done"].item()), False, {}


def learn_theirs(task: tuple[str, int]) -> dict[str, Any]:
    """Return the regret of Stable-Baselines3 on a system with a seed."""
    from stable_baselines3 import SAC
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    torch.set_num_threads(1)
    system, seed = task
    env = VecNormalize(DummyVecEnv([lambda: AsGymnasium(system, seed)]))
    options: dict[str, Any] = {"learning_rate": 1e-3, "batch_size": 256, "gamma": 0.99, "tau": 0.005}
    agent = SAC("MlpPolicy", env, learning_starts=WARMUP * STEPS, seed=seed, device="cpu", **options)
    agent.learn(EPISODES * STEPS)
    env.training = False
    observation, cost = env.reset(), 0.0
    for _ in range(STEPS):
        action, _ = agent.predict(observation, deterministic=True)
        observation, *_ = env.step(action)
        cost -= env.get_original_reward().item()
    optimum = load_optimum(system, episode_length=STEPS)
    assert optimum is not None
    return {"system": system, "seed": seed, "implementation": "stable-baselines3", "regret": optimum.regret(cost)}


def learn(seeds: int, workers: int, out: Path, progress: bool) -> list[dict[str, Any]]:
    """Return the regrets of both implementations."""
    jobs = [Job("sac", system, STEPS, seed) for system in SYSTEMS for seed in range(seeds)]
    rows = run_whole_study(jobs, out, EPISODES, workers, [f"--data.agent_updates={STEPS}"], progress)
    names = ("system", "seed", "regret")
    ours = [{name: row[name] for name in names} | {"implementation": "lit-awm"} for row in rows]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        theirs = list(pool.map(learn_theirs, [(job.system, job.seed) for job in jobs]))
    return ours + theirs


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table with the median and the range over seeds."""
    yield "| system | implementation | regret |"
    yield "|---|---|---|"
    for system in SYSTEMS:
        for implementation in ("lit-awm", "stable-baselines3"):
            found = [r["regret"] for r in rows if (r["system"], r["implementation"]) == (system, implementation)]
            spread = f"{median(found):.1%} ({min(found):.1%} to {max(found):.1%})"
            yield f"| {system} | {implementation} | {spread} |"


def main() -> None:
    """Parse the options, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side")
    parser.add_argument("--folder", type=Path, default=Path("runs/sac_parity"))
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    rows = learn(options.seeds, options.jobs, options.folder, not options.json)
    if options.json:
        print(json.dumps(rows))  # noqa: T201
        return
    print("\n".join(table(rows)))  # noqa: T201
    print(  # noqa: T201
        f"\nMedian (range) over {options.seeds} seeds, {EPISODES * STEPS} steps; {options.jobs} runs side by side with "
        f"one thread each on {os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__}, "
        f"{date.today():%Y-%m-%d}"
    )


if __name__ == "__main__":
    main()
