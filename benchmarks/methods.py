"""Where policies end up by each method of imagination: ``python benchmarks/methods.py [--json]``.

Runs of the common recipe to their end, several seeds each, ``--jobs`` of them side by side with one thread each. Takes
a bit over an hour and a half on two cores with the default seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from recipes import run
from tqdm import tqdm

from lit_awm.cli import COMMON

COMPARED = [
    *((system, 0, method) for system in ("cancer_treatment", "hiv_treatment", "timber_harvest", "van_der_pol")
      for method in ("warm", "replay")),
    ("van_der_pol", 1, "warm"),
    ("van_der_pol", 1, "sequential"),
]  # fmt: skip


def optimise(system: str, beta: int, method: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train by the common recipe with a method of imagination, and return the scores."""
    module = "--model.policy_module"
    options = [f"--data.env={system}", f"{module}.imagination={method}", f"{module}.policy_input_gradient={beta}"]
    place = folder / f"{method}_{beta}"
    place.mkdir(exist_ok=True)
    scores = run(COMMON, seed, place, 1, system, *options)
    found = {"regret": scores["regret"], "time_s": scores["training_time_s"]}
    return {"system": system, "beta": beta, "method": method, "seed": seed, **found}


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table with the median and the range over seeds."""
    yield "| system | beta | method | regret | time |"
    yield "|---|---|---|---|---|"
    for (system, beta, method), group in groupby(rows, lambda row: (row["system"], row["beta"], row["method"])):
        seeds = list(group)

        def spread(key: str, form: str, seeds: list[dict[str, Any]] = seeds) -> str:
            values = [row[key] for row in seeds]
            return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"

        yield f"| {system} | {beta} | {method} | {spread('regret', '.3%')} | {spread('time_s', '.0f')} s |"


def main() -> None:
    """Parse the options, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side")
    parser.add_argument("--folder", type=Path, default=Path("runs/methods"))
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    if options.folder.exists():
        parser.error(f"--folder must not exist yet, got {options.folder}. Give another, or remove it.")
    options.folder.mkdir(parents=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        futures = [pool.submit(optimise, *which, seed, options.folder) for which in COMPARED for seed in options.seeds]
        rows = [future.result() for future in tqdm(futures, "runs", disable=options.json)]
    if options.json:
        print(json.dumps({"rows": rows}))  # noqa: T201
        return
    print("\n".join(table(rows)))  # noqa: T201
    print(  # noqa: T201
        f"\nMedian (range) over the seeds {', '.join(map(str, options.seeds))}; {options.jobs} runs side by side with "
        f"one thread each on {os.cpu_count()} cores ({platform.machine()}), {date.today():%Y-%m-%d}."
    )


if __name__ == "__main__":
    main()
