"""What more processes bring, and what they cost: ``python benchmarks/scaling.py [--devices N] [--json]``.

Collectors: environment steps a second while nothing else happens, and while this process trains for as long as one
round takes the collector of a single process; with them, how old the policy is that has acted. Training: updates a
second of the recipe ``cancer_treatment`` with one process and with several, each with the whole batch (weak scaling) or
with its share (strong), and the share of the time that goes to averaging gradients. Last, a model of cost, fitted to
these: what it predicts for more processes.
Every process has one thread. Where there is a GPU, also on it, in single precision and in bf16.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer

import lit_awm.modules.alternating as alternating
from lit_awm.data.collectors import EpisodeCollector
from lit_awm.data.exploration import Exploration
from lit_awm.distributed import rank
from lit_awm.envs import make_env
from lit_awm.models import DeterministicPolicy
from lit_awm.recipes import build

Row = dict[str, Any]
SYSTEM, STEPS, ENVS, ROUNDS = "cancer_treatment", 100, 64, 10
WEAK, STRONG = "weak", "strong"
COUNTS = (1, 2, 8, 64, 1000)


# -- Collectors -------------------------------------------------------------------------------------------------------


def measure_collector(kind: Any, workers: int, busy: float) -> Row:
    """Return environment steps a second of a collector, of which this process trains for ``busy`` seconds a round."""
    make = partial(make_env, SYSTEM, episode_length=STEPS)
    env = make(ENVS)
    sizes = env.observation_spec["observation"].shape[-1], env.action_spec.shape[-1]
    exploration = Exploration(DeterministicPolicy(*sizes), sizes[1], 0.3, 10.0)
    exploration.at_random.fill_(False)
    collector = EpisodeCollector(kind, workers, env, make, exploration, STEPS, seed=0)
    collector.collect(0)
    ages, begin = list[float](), time.perf_counter()
    for number in range(1, ROUNDS + 1):
        train(busy)
        collector.collect(number * ENVS * STEPS)
        ages.append(collector.staleness)
    seconds = (time.perf_counter() - begin) / ROUNDS
    collector.close()
    return {"steps_per_s": ENVS * STEPS / seconds, "seconds": seconds, "staleness": sum(ages) / len(ages)}


def train(seconds: float) -> None:
    """Keep one core busy."""
    until, matrix = time.perf_counter() + seconds, torch.rand(64, 64)
    while time.perf_counter() < until:
        matrix @ matrix


def measure_collectors(workers: int) -> list[Row]:
    """Return a row for every collector, alone and beside training."""
    kinds = [("single", 1), ("multi_sync", workers), ("multi_async", workers)]
    kinds += [("ray", workers)] if find_spec("ray") is not None else []
    alone = {kind: measure_collector(kind, count, 0.0) for kind, count in kinds}
    busy = alone["single"]["seconds"]
    return [
        {
            "collector": kind,
            "processes": count,
            "alone": alone[kind]["steps_per_s"],
            **{name: value for name, value in measure_collector(kind, count, busy).items() if name != "seconds"},
        }
        for kind, count in kinds
    ]


# -- Training ---------------------------------------------------------------------------------------------------------


class Clock(Callback):
    """Take the time of every update, and of what it spends on averaging gradients."""

    def __init__(self) -> None:
        self.averaging, self.updates, self.begin, self.counting = 0.0, 0, 0.0, False
        self.bytes = 0

    def average(self, parameters: Any) -> None:
        """Average gradients, and take the time."""
        parameters = list(parameters)
        begin = time.perf_counter()
        original_average(parameters)
        if self.counting:
            self.averaging += time.perf_counter() - begin
            self.bytes = max(self.bytes, sum(4 * each.numel() for each in parameters))

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.current_epoch == 1:  # the first one warms up
            self.counting, self.begin = True, time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self.updates += self.counting

    def told(self, count: int) -> Row:
        seconds = time.perf_counter() - self.begin
        share = self.averaging / seconds
        return {"updates_per_s": self.updates / seconds, "share": share, "bytes": self.bytes, **time_messages(count)}


original_average = alternating.average_gradients


def time_messages(count: int) -> Row:
    """Return the seconds of the smallest message between all processes, and those of each further byte."""
    if count == 1:
        return {}

    def seconds(size: int) -> float:
        message, times = torch.zeros(size), list[float]()
        for _ in range(30):
            dist.barrier()
            begin = time.perf_counter()
            dist.all_reduce(message)
            times.append(time.perf_counter() - begin)
        return sorted(times)[len(times) // 2]

    small, large = seconds(1), seconds(2**22)
    return {"latency": small, "seconds_per_byte": (large - small) / (4 * 2**22)}


def work(count: int, scaling: str, accelerator: str, precision: str, out: Path) -> None:
    """Train as one of ``count`` processes; the first writes what it has measured."""
    torch.set_num_threads(1)
    share = count if scaling == STRONG else 1
    options = [f"--config={SYSTEM}", f"--data.num_envs={4 // share}", f"--data.warmup_episodes={12 // share}"]
    options += [f"--data.world_model_batch_size={16 // share}", f"--data.policy_batch_size={8 // share}"]
    module, data = build([*options, "--data.turns=1"])
    clock = Clock()
    alternating.average_gradients = clock.average
    trainer = Trainer(
        accelerator=accelerator,
        devices=count,
        strategy="ddp" if count > 1 else "auto",
        precision=precision,  # type: ignore[arg-type]
        max_epochs=3,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, data)
    told = clock.told(count)
    if rank() == 0:
        out.write_text(json.dumps(told))


def measure_training(count: int, scaling: str, accelerator: str = "cpu", precision: str = "32-true") -> Row:
    """Return what ``count`` processes measure of their training."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "told.json"
        words = [sys.executable, __file__, "--work", str(count), scaling, accelerator, precision, str(out)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(words, check=True, capture_output=True, env=environment)
        told: Row = json.loads(out.read_text())
    return {"processes": count, "scaling": scaling, "accelerator": accelerator, "precision": precision, **told}


# -- Cost -------------------------------------------------------------------------------------------------------------


def predict(compute: float, latency: float, seconds_per_byte: float, size: int, count: int) -> float:
    """Return the seconds of an update by ``count`` processes, each with a whole batch.

    The gradients of ``size`` bytes go around a ring: twice all but one of ``count`` parts, in as many messages. What
    was measured between two processes, ``latency`` for an empty message and ``seconds_per_byte``, is a ring of two.
    """
    if count == 1:
        return compute
    messages = count - 1  # each way; a ring of two has one
    return compute + latency * messages + seconds_per_byte * size * 2 * messages / count


def predictions(rows: list[Row]) -> list[Row]:
    """Return the cost of an update for more processes, by the network that was measured, and by one for GPUs."""
    one, two = rows[0], next(row for row in rows if row["processes"] > 1 and row["scaling"] == WEAK)
    here = (two["latency"], two["seconds_per_byte"])
    networks = {"as measured": here, "10 us, 10 GB/s": (1e-5, 1e-10)}
    compute = (1 - two["share"]) / two["updates_per_s"]  # beside as many processes as there are cores
    return [
        {
            "network": name,
            "processes": count,
            "seconds": (
                seconds := predict(1 / one["updates_per_s"] if count == 1 else compute, *costs, two["bytes"], count)
            ),
            "efficiency": 1 / one["updates_per_s"] / seconds,
        }
        for name, costs in networks.items()
        for count in COUNTS
    ]


def report(collectors: list[Row], training: list[Row], costs: list[Row]) -> list[str]:
    """Return the tables."""
    lines = [
        "| collector | processes | steps/s alone | steps/s beside training | age of the policy |",
        "|---|---|---|---|---|",
    ]
    for row in collectors:
        lines.append(
            f"| `{row['collector']}` | {row['processes']} | {row['alone']:,.0f} | {row['steps_per_s']:,.0f} | "
            f"{row['staleness']:.1f} |"
        )
    lines += [
        "",
        "| processes | scaling | precision | updates/s, each | batches/s, all | averaging |",
        "|---|---|---|---|---|---|",
    ]
    for row in training:
        batches = row["updates_per_s"] * (row["processes"] if row["scaling"] == WEAK else 1)
        lines.append(
            f"| {row['processes']} | {row['scaling']} | {row['accelerator']}, {row['precision']} | "
            f"{row['updates_per_s']:.1f} | {batches:.1f} | {row['share']:.1%} |"
        )
    lines += ["", "| network | processes | an update | efficiency |", "|---|---|---|---|"]
    for row in costs:
        lines.append(
            f"| {row['network']} | {row['processes']} | {1000 * row['seconds']:.1f} ms | {row['efficiency']:.0%} |"
        )
    return lines


def main() -> None:
    """Measure, predict, print."""
    if sys.argv[1:2] == ["--work"]:
        count, scaling, accelerator, precision, out = sys.argv[2:]
        work(int(count), scaling, accelerator, precision, Path(out))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=2, help="processes to compare with one (default: 2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    if options.devices < 2 or math.gcd(options.devices, 4) != options.devices:
        parser.error(f"devices must be 2 or 4, which share 4 environments out, got {options.devices}.")
    torch.set_num_threads(1)
    collectors = measure_collectors(options.devices)
    training = [measure_training(1, WEAK)]
    training += [measure_training(options.devices, scaling) for scaling in (WEAK, STRONG)]
    if torch.cuda.is_available():
        training += [measure_training(1, WEAK, "gpu", precision) for precision in ("32-true", "bf16-mixed")]
    costs = predictions(training)
    if options.json:
        print(json.dumps({"collectors": collectors, "training": training, "costs": costs}))  # noqa: T201
        return
    print("\n".join(report(collectors, training, costs)))  # noqa: T201
    print(  # noqa: T201
        f"\n{os.cpu_count()} cores ({platform.machine()}), one thread a process, torch {torch.__version__}, "
        f"{date.today():%Y-%m-%d}"
    )


if __name__ == "__main__":
    main()
