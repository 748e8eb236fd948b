"""Where the time of an outer iteration goes: ``python benchmarks/profile_recipe.py [RECIPE] [--json]``.

The recipe is run as ``lit-awm fit`` runs it, with its callbacks, logger and checkpoints, and the parts are timed while
it runs. The first iteration, which warms up, does not count.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import tempfile
import time
from collections import defaultdict
from datetime import date
from typing import Any

import torch
from lightning.pytorch import Callback

from lit_awm.cli import resolve_recipes
from lit_awm.recipes import make_cli

MATHEMATICS = (
    "loss of the world model",
    "loss of the teacher",
    "labels of the teacher",
    "choice by the teacher",
    "imagined return",
    "backward passes",
    "optimizers",
)

HOOKS = ("on_train_batch_start", "on_train_batch_end", "on_before_optimizer_step", "on_train_epoch_end")


class Stopwatch(Callback):
    """Time parts of a run, exclusively: what a part calls of another is not counted twice."""

    def __init__(self) -> None:
        self.times: dict[str, float] = defaultdict(float)
        self.running: list[str] = ["everything else"]
        self.last = time.perf_counter()
        self.iterations = 0
        self.found: dict[str, float] = {}

    def switch(self) -> None:
        """Book the time since the last switch."""
        now = time.perf_counter()
        self.times[self.running[-1]] += now - self.last
        self.last = now

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Book every call of a method to a part."""
        method = getattr(owner, name)

        @functools.wraps(method)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.switch()
            self.running.append(part)
            try:
                return method(*args, **kwargs)
            finally:
                self.switch()
                self.running.pop()

        object.__setattr__(owner, name, timed)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.switch()
        if trainer.current_epoch == 1:
            self.times.clear()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.switch()  # what a run does once, at its end, is no part of an iteration
        self.found, self.iterations = dict(self.times), trainer.current_epoch


def profile(recipe: str, epochs: int, more: list[str]) -> tuple[dict[str, float], int]:
    """Return the seconds of each part, and how many iterations they are of."""
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--trainer.max_epochs={epochs}", f"--trainer.logger.save_dir={folder}", "--trainer.accelerator=cpu"]
        cli = make_cli(resolve_recipes([f"--config={recipe}", *more, *options]), run=False)
        module, data, trainer = cli.model, cli.datamodule, cli.trainer
        watch.watch(module.world_model, "loss_and_metrics", "loss of the world model")
        watch.watch(module.policy, "loss_and_metrics", "imagined return")
        watch.watch(module, "manual_backward", "backward passes")
        if module.teacher is not None:
            watch.watch(module.teacher, "loss_and_metrics", "loss of the teacher")
            watch.watch(module.teacher, "add_to", "labels of the teacher")
            watch.watch(module, "_choose_policy", "choice by the teacher")
        watch.watch(data, "try_policy", "trial")
        watch.watch(module, "log_dict", "logging of metrics")
        watch.watch(data, "collect", "collecting episodes")
        watch.watch(data, "sample_trajectories", "sampling from the buffer")
        watch.watch(data, "sample_initial_states", "sampling from the buffer")
        configure = module.configure_optimizers

        def configure_optimizers() -> Any:
            made = configure()
            for each in made:
                optimizer = each["optimizer"] if isinstance(each, dict) else each
                watch.watch(optimizer, "step", "optimizers")
            return made

        object.__setattr__(module, "configure_optimizers", configure_optimizers)
        for callback in trainer.callbacks:
            for hook in HOOKS:
                watch.watch(callback, hook, f"callback {type(callback).__name__}")
        trainer.callbacks.append(watch)
        watch.watch(trainer.fit_loop.epoch_loop.val_loop, "run", "evaluation")
        trainer.fit(module, data)
    return watch.found, watch.iterations


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="Further options are those of `lit-awm fit`.")
    parser.add_argument("recipe", nargs="?", default="cancer_treatment")
    parser.add_argument("--epochs", type=int, default=4, help="outer iterations, of which the first does not count")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options, more = parser.parse_known_args()
    if options.epochs < 2:
        parser.error(f"epochs must be at least 2, of which the first does not count, got {options.epochs}.")
    times, iterations = profile(options.recipe, options.epochs, more)
    total = sum(times.values())
    rows = [
        {"part": part, "seconds": seconds / iterations, "share": seconds / total}
        for part, seconds in sorted(times.items(), key=lambda item: -item[1])
        if seconds >= 0.0005 * total
    ]
    outside = 1 - sum(times.get(part, 0.0) for part in MATHEMATICS) / total
    if options.json:
        print(json.dumps({"rows": rows, "outside": outside}))  # noqa: T201
        return
    print("\n| part | seconds in an iteration | share |\n|---|---|---|")  # noqa: T201
    for row in rows:
        print(f"| {row['part']} | {row['seconds']:.2f} | {row['share']:.1%} |")  # noqa: T201
    print(f"| **outside of model and policy** | {outside * total / iterations:.2f} | **{outside:.1%}** |")  # noqa: T201
    print(  # noqa: T201
        f"\nRecipe {options.recipe}, mean of {iterations} iterations, {torch.get_num_threads()} thread(s) on "
        f"{os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__}, {date.today():%Y-%m-%d}."
    )


if __name__ == "__main__":
    main()
