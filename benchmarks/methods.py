"""Where policies end up by each method of imagination: ``python benchmarks/methods.py [--json]``.

Runs of the common recipe to their end, several seeds each, side by side with one thread each. Takes a bit over an hour
and a half on two cores with the default seeds; the same command again goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from lit_awm.recipes import UNTAUGHT
from lit_awm.studies.benchmark import Job, run_whole_study

COMPARED = {  # which systems, by share of the gradient through the policy's inputs, and method
    (0, "warm"): ("cancer_treatment", "hiv_treatment", "timber_harvest", "van_der_pol"),
    (0, "replay"): ("cancer_treatment", "hiv_treatment", "timber_harvest", "van_der_pol"),
    (1, "warm"): ("van_der_pol",),
    (1, "sequential"): ("van_der_pol",),
}
LENGTH, EPISODES = 100, 48


def optimise(
    beta: int, method: str, seeds: int, folder: Path, workers: int, progress: bool = True
) -> list[dict[str, Any]]:
    """Train by the common recipe with a method of imagination, and return the scores."""
    module = "--model.policy_module"
    options = [f"{module}.imagination={method}", f"{module}.policy_input_gradient={beta}", *UNTAUGHT]
    options += ["--model.policy.least_slope=0"]  # true derivatives
    jobs = [Job("actions", system, LENGTH, seed) for system in COMPARED[beta, method] for seed in range(seeds)]
    out = folder / f"{method}_{beta}"
    rows = run_whole_study(jobs, out, EPISODES, workers, options, progress)
    return [
        {"system": row["system"], "beta": beta, "method": method, "seed": row["seed"], "regret": row["regret"]}
        | {"time_s": row["train_seconds"]}
        for row in rows
    ]


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table with the median and the range over seeds."""
    yield "| system | beta | method | regret | time |"
    yield "|---|---|---|---|---|"
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["system"], row["beta"], row["method"]), []).append(row)
    for (system, beta, method), seeds in sorted(groups.items(), key=lambda item: item[0][:2]):

        def spread(key: str, form: str, seeds: list[dict[str, Any]] = seeds) -> str:
            values = [row[key] for row in seeds]
            return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"

        yield f"| {system} | {beta} | {method} | {spread('regret', '.3%')} | {spread('time_s', '.0f')} s |"


def main() -> None:
    """Parse the options, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side")
    parser.add_argument("--folder", type=Path, default=Path("runs/methods"))
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    rows = [
        row
        for beta, method in COMPARED
        for row in optimise(beta, method, options.seeds, options.folder, options.jobs, not options.json)
    ]
    if options.json:
        print(json.dumps({"rows": rows}))  # noqa: T201
        return
    print("\n".join(table(rows)))  # noqa: T201
    print(  # noqa: T201
        f"\nMedian (range) over {options.seeds} seeds; {options.jobs} runs side by side with one thread each on "
        f"{os.cpu_count()} cores ({platform.machine()}), {date.today():%Y-%m-%d}."
    )


if __name__ == "__main__":
    main()
