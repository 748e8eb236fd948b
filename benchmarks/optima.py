"""Find the optima of all systems and write ``lit_awm/envs/optima.json``: ``python benchmarks/optima.py [SYSTEM ...]``.

With names only these are found anew. With ``--lengths 200,1000`` those that
go on in continuous time are found with so many steps in place of their own, beginning at their stored optimum.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy
import scipy
import torch
from tqdm import tqdm

from lit_awm.analysis import Solution, random_cost, solve
from lit_awm.envs import SYSTEMS, OdeEnv
from lit_awm.envs.factory import PATHOLOGICAL

TARGET = Path(__file__).resolve().parent.parent / "lit_awm" / "envs" / "optima.json"
STARTS = {"cartpole": 8, "pendulum": 1}
ON_GRID = ("pendulum",)  # many valleys
DEFAULT_STARTS, LONGER_STARTS = 6, 2
LONGER = [
    name
    for name, system in SYSTEMS.items()
    if system not in PATHOLOGICAL and issubclass(system, OdeEnv) and not system.is_discrete
]


def describe(name: str) -> dict[str, Any]:
    """Return the record of one system, with the fields of ``lit_awm.envs.Optimum``."""
    torch.set_num_threads(1)
    env, starts = SYSTEMS[name](), STARTS.get(name, DEFAULT_STARTS)
    best, constant = solve(env, starts=starts, grid=name in ON_GRID), solve(env, starts=starts, constant=True)
    exact = None
    if isinstance(env, OdeEnv) and not env.target_state.isnan().all():
        exact = solve(env, starts=starts, exact_target=True, grid=name in ON_GRID).cost
    return {
        "cost": best.cost,
        "random_cost": random_cost(env),
        "constant_cost": constant.cost,
        "exact_target_cost": exact,
        **_found(f"lit-awm oracle {name} --starts {starts}{' --grid' if name in ON_GRID else ''}", best, constant),
    }


def describe_longer(name: str, length: int, record: dict[str, Any]) -> dict[str, Any]:
    """Return the record of one system with another number of steps, from that with its own."""
    torch.set_num_threads(1)
    env, controls = SYSTEMS[name](episode_length=length), torch.tensor(record["controls"], dtype=torch.float64)
    held = controls[torch.arange(length) * len(controls) // length]
    best = solve(env, starts=LONGER_STARTS, nearby=held)
    constant = solve(env, starts=DEFAULT_STARTS, constant=True)
    return {
        "cost": best.cost,
        "random_cost": random_cost(env),
        "constant_cost": constant.cost,
        **_found(f"python benchmarks/optima.py --lengths {length} {name}", best, constant),
    }


def _found(command: str, best: Solution, constant: Solution) -> dict[str, Any]:
    return {
        "costs": [float(f"{cost:.9g}") for cost in best.costs],
        "found": f"{command}; {datetime.date.today()}, torch {torch.__version__}, scipy {scipy.__version__}, "
        f"numpy {numpy.__version__}",
        "constant_control": constant.controls[0].tolist(),
        "controls": [[float(f"{value:.9g}") for value in row] for row in best.controls.tolist()],
    }


def main() -> None:
    """Write the records of all systems, or of those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("systems", nargs="*", default=[], choices=[*SYSTEMS, []], help="what to find anew")
    parser.add_argument("--lengths", default="", help="numbers of steps in place of the systems' own, as 200,1000")
    options = parser.parse_args()
    if options.lengths and not re.fullmatch(r"[1-9][0-9]*(,[1-9][0-9]*)*", options.lengths):
        parser.error(f"lengths must be whole numbers from 1 on, with commas between them, got {options.lengths!r}.")
    if options.lengths and (others := set(options.systems) - set(LONGER)):
        parser.error(f"systems must be in continuous time with lengths, got {', '.join(sorted(others))}.")
    lengths = [int(length) for length in options.lengths.split(",") if length]
    names = options.systems or (list(LONGER) if lengths else list(SYSTEMS))
    records = json.loads(TARGET.read_text(encoding="utf-8")) if TARGET.exists() else {}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        if lengths:
            tasks = [(name, length) for length in lengths for name in names]
            runs = {pool.submit(describe_longer, *task, records[task[0]]): "{}/{}".format(*task) for task in tasks}
        else:
            runs = {pool.submit(describe, name): name for name in names}
        for run in tqdm(as_completed(runs), total=len(runs), desc="systems"):
            records[runs[run]] = run.result()
            text = json.dumps({name: records[name] for name in sorted(records)}, indent=0)
            TARGET.write_text(text + "\n", encoding="utf-8")
            tqdm.write(f"{runs[run]:<32}{records[runs[run]]['cost']:.10g}")


if __name__ == "__main__":
    main()
