"""Steps per second of every system: ``python benchmarks/env_throughput.py [--compile] [SYSTEM ...]``.

The environment, stepped as TorchRL steps it (``env.step`` and ``step_mdp``), beside a bare tensor loop of the same
step, in the same run: the systems themselves, and as agents see them, with actions scaled and an observation assembled.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import time
from collections.abc import Callable

import torch
from torchrl.envs import EnvBase

from lit_awm.envs import SYSTEMS, ControlEnv, make_env

STEPS, REPEATS = 100, 5


def seconds_per_step(loop: Callable[[], object]) -> float:
    """Return the least time of several runs, which other work on the machine disturbs least."""
    times = []
    for _ in range(REPEATS + 1):  # the first one warms up
        begin = time.perf_counter()
        loop()
        times.append(time.perf_counter() - begin)
    return min(times[1:]) / STEPS


def bare_loop(env: ControlEnv) -> None:
    """Step the system without TorchRL."""
    batch = env.batch_size[0]
    state = env.initial_state.to(env.float_type).expand(batch, -1)
    control = env.control_bounds.to(env.float_type).mean(-1).expand(batch, -1)
    now = state.new_zeros(batch)
    for _ in range(STEPS):
        state, _ = env.step_fn(state, control, now)
        now = now + env.dt


def torchrl_loop(env: EnvBase) -> None:
    """Step the environment as a collector does."""
    step = env.reset()
    action = (env.action_spec.space.low + env.action_spec.space.high) / 2
    for _ in range(STEPS):
        step = env.step_mdp(env.step(step.set("action", action)))


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("systems", nargs="*", help="which systems; all by default")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 4096])
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--compile", action="store_true", help="compile the step of the environments, not the bare loop's"
    )
    options = parser.parse_args()
    print("| system | batch | bare loop | environment | ratio | as agents see it | ratio |")  # noqa: T201
    print("|---|---|---|---|---|---|---|")  # noqa: T201
    with torch.no_grad():
        for name in options.systems or sorted(SYSTEMS):
            for batch in options.batches:
                plain = SYSTEMS[name](num_envs=batch, device=options.device)
                seen = make_env(name, num_envs=batch, device=options.device)
                bare = seconds_per_step(lambda env=plain: bare_loop(env))
                for env in (plain, seen.base_env):
                    env.interval = torch.compile(env.interval) if options.compile else env.interval
                times = [seconds_per_step(lambda env=env: torchrl_loop(env)) for env in (plain, seen)]
                cells = [f"{batch / took:,.0f} /s | {took / bare:.2f}" for took in times]
                print(f"| {name} | {batch} | {batch / bare:,.0f} /s | {' | '.join(cells)} |", flush=True)  # noqa: T201
    print(  # noqa: T201
        f"\nBest of {REPEATS} runs of {STEPS} steps; {torch.get_num_threads()} threads on {os.cpu_count()} cores "
        f"({platform.machine()}), {options.device}, {'compiled' if options.compile else 'eager'}, "
        f"torch {torch.__version__}, {datetime.date.today()}."
    )


if __name__ == "__main__":
    main()
