"""Settings of every method on a few systems, with the same effort: ``python benchmarks/tuning.py [--json]``.

Each method has as many settings, those of `lit-awm study` among them, on the same systems, seeds and environment steps.
The table says what each setting reaches, and what the search took. The same command again goes on where it was
interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import torch

from lit_awm.analysis.statistics import interquartile_mean
from lit_awm.studies.benchmark import STEPS, Job, round_down, run_whole_study

SYSTEMS = ("cancer_treatment", "harvest", "van_der_pol")
EPISODES = round_down(5000)
AS_STUDIED = "as studied"
ONE_UPDATE = f"--data.agent_updates={STEPS}"
FEWER, FEWER_UPDATES = "50 updates an episode", "--data.agent_updates=50"
GRIDS: dict[str, dict[str, list[str]]] = {
    "actions": {
        AS_STUDIED: [],
        "policy lr 1e-3": ["--model.policy_module.optimizer.lr=1e-3"],
        "world model lr 3e-3": ["--model.world_model_module.optimizer.lr=3e-3"],
        "one turn": ["--data.turns=1"],
    },
    "sac": {
        AS_STUDIED: [],  # two updates a step
        "one update a step": [ONE_UPDATE],
        "one update a step, lr 3e-4": [ONE_UPDATE, "--model.optimizer.lr=3e-4"],
        "one update a step, discount 1": [ONE_UPDATE, "--model.discount=1.0"],
    },
    "online_dt": {
        AS_STUDIED: [],  # 100 updates an episode, lr 1e-3
        FEWER: [FEWER_UPDATES],
        f"{FEWER}, lr 3e-4": [FEWER_UPDATES, "--model.optimizer.lr=3e-4"],
        f"{FEWER}, random controls held": [FEWER_UPDATES, "--data.mean_hold=10"],
    },
}


def search(methods: list[str], seeds: int, folder: Path, workers: int, progress: bool) -> list[dict[str, Any]]:
    """Return a row for each method and setting."""
    rows = []
    for method in methods:
        for number, (setting, options) in enumerate(GRIDS[method].items()):
            jobs = [Job(method, system, STEPS, seed) for system in SYSTEMS for seed in range(seeds)]
            out = folder / f"{method}_{number}"
            found = run_whole_study(jobs, out, EPISODES, workers, options, progress)
            regrets = {system: [row["regret"] for row in found if row["system"] == system] for system in SYSTEMS}
            rows.append(
                {"method": method, "setting": setting, "regret": interquartile_mean(list(regrets.values()))}
                | {system: interquartile_mean([values]) for system, values in regrets.items()}
                | {"seconds": sum(row["train_seconds"] for row in found)}
            )
    return rows


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield "| method | setting | all | " + " | ".join(SYSTEMS) + " | time of the runs |"
    yield "|---|---|---|" + "---|" * (len(SYSTEMS) + 1)
    for row in rows:
        scores = " | ".join(f"{row[name]:.2%}" for name in ("regret", *SYSTEMS))
        yield f"| {row['method']} | {row['setting']} | {scores} | {row['seconds']:.0f} s |"


def main() -> None:
    """Parse the options, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=list(GRIDS), choices=list(GRIDS), help="which (default: all)")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds (default: 1)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side")
    parser.add_argument("--folder", type=Path, default=Path("runs/tuning"))
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    rows = search(options.methods, options.seeds, options.folder, options.jobs, not options.json)
    if options.json:
        print(json.dumps(rows))  # noqa: T201
        return
    print("\n".join(table(rows)))  # noqa: T201
    print(  # noqa: T201
        f"\nInterquartile mean regret, {options.seeds} seed(s), {EPISODES * STEPS} steps; {options.jobs} runs side by "
        f"side with one thread each on {os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__}, "
        f"{date.today():%Y-%m-%d}"
    )


if __name__ == "__main__":
    main()
