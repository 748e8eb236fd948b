"""Kill a run again and again, resume it, and compare it with one that was left alone: ``python benchmarks/kills.py``.

Each time the run is started by the same command, ``lit-awm fit ... --resume``, and killed (SIGKILL) at a random moment
of one of these kinds: while it starts, while it writes a checkpoint, just after, when it collects experience, or during
the updates of world model and policy; or it is asked to stop by SIGTERM or SIGINT and saves itself. In the end the
weights of both runs must be equal to the bit, and their logs but for the columns of times.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

COMMAND = """lit-awm fit --config cancer_treatment --resume
    --data.episode_length 20 --data.warmup_episodes 3 --data.teacher_updates 20 --data.world_model_updates 15
    --data.policy_updates 25
    --model.world_model.backbone.hidden_dim 16 --model.policy.hidden_dim 16 --trainer.log_every_n_steps 3"""
MOMENTS = ("starting", "writing a checkpoint", "collecting", "updating", "asked by SIGTERM", "asked by SIGINT")
MEASURED = ("time/", "memory/")  # of processes, not of what is learned
LONGEST_WAIT = 120.0  # seconds for a moment to come


def start(folder: Path, epochs: int) -> subprocess.Popen[bytes]:
    """Start the run, or go on with it."""
    main = "import sys; from lit_awm.cli import main; sys.exit(main())"
    words = [*COMMAND.split()[1:], "--trainer.max_epochs", str(epochs), "--trainer.accelerator", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-c", main, *words], cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )


def newest_run(folder: Path) -> Path | None:
    """Return the folder of the run's log."""
    runs = folder.glob("runs/cancer_treatment/version_*")
    return max(runs, key=lambda run: int(run.name.removeprefix("version_")), default=None)


def wait_for(process: subprocess.Popen[bytes], moment: Callable[[], bool]) -> bool:
    """Return whether a moment has come before the process has ended."""
    begin = time.monotonic()
    while process.poll() is None and not moment():
        if time.monotonic() - begin > LONGEST_WAIT:
            raise TimeoutError(f"no such moment came in {LONGEST_WAIT:.0f} s")
        time.sleep(0.0005)
    return process.poll() is None


def kill(folder: Path, epochs: int, kind: str, chance: random.Random) -> bool:
    """Start the run and kill it at a moment of a kind; return whether it was killed before it ended by itself."""
    process = start(folder, epochs)
    began = time.time_ns()

    def written(pattern: str) -> bool:
        run = newest_run(folder)
        try:
            return run is not None and any(file.stat().st_mtime_ns > began for file in run.glob(pattern))
        except FileNotFoundError:  # it was replaced in between
            return False

    if kind == "starting":
        time.sleep(chance.uniform(0, 6))
        was_in_time = process.poll() is None
    elif kind == "writing a checkpoint":
        was_in_time = wait_for(process, lambda: written("checkpoints/**/.*.partial"))
    elif kind == "collecting":
        was_in_time = wait_for(process, lambda: written("checkpoints/last.ckpt"))
        time.sleep(chance.uniform(0, 0.1))
    else:
        was_in_time = wait_for(process, lambda: written("metrics.csv"))
        time.sleep(chance.uniform(0, 1))
    was_in_time = was_in_time and process.poll() is None
    process.send_signal(getattr(signal, kind.split()[-1]) if kind.startswith("asked") else signal.SIGKILL)
    process.wait()
    return was_in_time


def compare(ours: Path, theirs: Path) -> tuple[float, int]:
    """Return the largest difference of a weight (infinite if one is no number), and the rows in which logs differ."""
    files = [run / "checkpoints" / "last.ckpt" for run in (ours, theirs)]
    weights: list[dict[str, Any]] = [torch.load(file, weights_only=True)["state_dict"] for file in files]
    tensors = [name for name, value in weights[1].items() if isinstance(value, torch.Tensor)]
    differences = [(weights[0][name].double() - weights[1][name].double()).abs().max().item() for name in tensors]
    worst = max(math.inf if math.isnan(each) else each for each in differences)
    logs = []
    for run in (ours, theirs):
        with (run / "metrics.csv").open(newline="") as file:
            rows = csv.DictReader(file)
            logs.append([{name: value for name, value in row.items() if not name.startswith(MEASURED)} for row in rows])
    differing = sum(a != b for a, b in zip(*logs, strict=False)) + abs(len(logs[0]) - len(logs[1]))
    return worst, differing


def survive(folder: Path, kills: int, seed: int, progress: bool = True) -> dict[str, Any]:
    """Kill a run ``kills`` times and let it end; return what it and a run that was left alone differ by."""
    chance, epochs = random.Random(seed), max(6, 3 * kills)
    whole, interrupted = folder / "whole", folder / "interrupted"
    for each in (whole, interrupted):
        each.mkdir()
    if start(whole, epochs).wait() != 0:
        raise RuntimeError((whole / "output.txt").read_text()[-2000:])
    counts: Counter[str] = Counter()
    for kind in tqdm([MOMENTS[i % len(MOMENTS)] for i in range(kills)], "kills", disable=not progress):
        counts[kind if kill(interrupted, epochs, kind, chance) else "after its end"] += 1
    status = start(interrupted, epochs).wait()
    if status != 0:
        raise RuntimeError(f"the run cannot be resumed:\n{(interrupted / 'output.txt').read_text()[-2000:]}")
    ours, theirs = newest_run(interrupted), newest_run(whole)
    assert ours is not None
    assert theirs is not None
    worst, rows = compare(ours, theirs)
    return {"kills": dict(counts), "largest_difference": worst, "differing_rows": rows}


def main() -> int:
    """Print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="how often to kill (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = survive(Path(folder), options.kills, options.seed, progress=not options.json)
    if options.json:
        print(json.dumps(found))  # noqa: T201
    else:
        for kind, count in found["kills"].items():
            print(f"stopped while {kind:<21}{count:>4}")  # noqa: T201
        print(f"largest difference of a weight    {found['largest_difference']}")  # noqa: T201
        print(f"rows of the log that differ       {found['differing_rows']}")  # noqa: T201
        print(f"\nSeed {options.seed}, CPU ({platform.machine()}), torch {torch.__version__}, {date.today():%Y-%m-%d}.")  # noqa: T201
    return int(found["largest_difference"] > 0 or found["differing_rows"] > 0)


if __name__ == "__main__":
    sys.exit(main())
