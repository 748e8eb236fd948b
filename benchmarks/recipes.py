"""Run every recipe with several seeds and print the table of the README: ``python benchmarks/recipes.py``.

Each run is a process of its own with one thread; ``--jobs`` of them run side by side. Takes about half an hour on two
cores with the default seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from lit_awm.cli import recipes
from lit_awm.envs.factory import SYSTEMS


def run(recipe: str, seed: int, folder: Path, threads: int, system: str, *options: str) -> dict[str, Any]:
    """Train by a recipe, score the last checkpoint, and return what ``lit-awm evaluate --json`` says."""
    command = [sys.executable, "-m", "lit_awm.cli"]
    logger = [f"--trainer.logger.save_dir={folder}", f"--trainer.logger.version=seed_{seed}"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    fit = [*command, "fit", f"--config={recipe}", f"--seed_everything={seed}", *options, *logger]
    log = folder / f"{system}_{seed}.txt"
    with log.open("w") as file:
        subprocess.run(fit, stdout=file, stderr=subprocess.STDOUT, check=True, env=environment)
    checkpoint = folder / system / f"seed_{seed}" / "checkpoints" / "last.ckpt"
    scored = subprocess.run(
        [*command, "evaluate", str(checkpoint), "--json"], capture_output=True, text=True, check=True
    )
    return json.loads(scored.stdout)


def table(results: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table with the median and the range over seeds."""
    yield "| recipe | environment steps | cost | optimum | regret | gap | time |"
    yield "|---|---|---|---|---|---|---|"
    for recipe in sorted({result["env"] for result in results}):
        rows = [result for result in results if result["env"] == recipe]

        def spread(key: str, form: str, rows: list[dict[str, Any]] = rows) -> str:
            values = [row[key] for row in rows]
            if None in values:
                return "-"
            return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"

        steps, optimum = rows[0]["env_steps"], rows[0]["optimum"]
        cells = [recipe, f"{steps:,}", spread("cost", ".6g"), f"{optimum:.6g}", spread("regret", ".3%")]
        cells += [spread("gap", ".2%"), spread("training_time_s", ".0f") + " s"]
        yield "| " + " | ".join(cells) + " |"


def main() -> None:
    """Parse the options, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", nargs="+", default=[name for name in recipes() if name in SYSTEMS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side")
    parser.add_argument("--threads", type=int, default=1, help="threads of a run")
    parser.add_argument("--folder", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    if options.folder.exists():
        parser.error(f"--folder must not exist yet, got {options.folder}. Give another, or remove it.")
    options.folder.mkdir(parents=True)
    jobs = [(recipe, seed) for recipe in options.recipes for seed in options.seeds]
    with ThreadPoolExecutor(options.jobs) as pool:
        futures = [pool.submit(run, recipe, seed, options.folder, options.threads, recipe) for recipe, seed in jobs]
        results = [future.result() for future in tqdm(futures, "runs", disable=options.json)]
    if options.json:
        print(json.dumps({"rows": results}))  # noqa: T201
        return
    print("\n".join(table(results)))  # noqa: T201
    seeds = ", ".join(map(str, options.seeds))
    print(  # noqa: T201
        f"\nMedian (range) over the seeds {seeds}; {options.jobs} runs side by side with {options.threads} thread(s) "
        f"each on {os.cpu_count()} cores ({platform.machine()}), {date.today():%Y-%m-%d}."
    )


if __name__ == "__main__":
    main()
