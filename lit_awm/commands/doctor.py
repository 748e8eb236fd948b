"""``lit-awm doctor``: what a run will meet on this machine."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import os
import platform
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from packaging.requirements import Requirement
from torchrl.envs.utils import check_env_specs

from lit_awm.checks import check_writable
from lit_awm.cli import resolve_recipes
from lit_awm.commands.output import print_result
from lit_awm.data import ExperienceDataModule
from lit_awm.envs import make_env
from lit_awm.modules import AlternatingModule
from lit_awm.recipes import make_cli

BAD_VERSIONS = [  # what must not be installed, and why
    ("lightning==2.6.2", "it was compromised"),
    ("lightning==2.6.3", "it was compromised"),
    ("mujoco>=4", "dm-control 1.0 does not work with it"),
]
TRIED = 6  # updates of each phase that are timed
Findings = dict[str, Any]


class Stopwatch(Callback):
    """Time the updates of each phase, and what lies between epochs."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.begin = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        self.begin = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self.seconds[batch["phase"]].append(time.perf_counter() - self.begin)


def main(arguments: list[str]) -> int:
    """Tell versions, devices and, for a recipe, whether it can run here, and its memory and time."""
    parser = argparse.ArgumentParser(
        prog="lit-awm doctor",
        allow_abbrev=False,
        description=main.__doc__,
        epilog="All further options are those of the recipe, as for `lit-awm fit`: like `--config hiv_treatment`.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options, recipe = parser.parse_known_args(arguments)
    problems = list[str]()
    found: Findings = {**_versions(problems), **_devices()}
    if recipe:
        found |= _try(recipe, problems)
    if options.json:
        print_result(found | {"problems": problems}, as_json=True)
    else:
        print_result(found, as_json=False)
        for problem in problems:
            print(f"PROBLEM           {problem}")  # noqa: T201
        if not problems:
            print("no problems found")  # noqa: T201
    return int(bool(problems))


def _versions(problems: list[str]) -> Findings:
    """Return versions of what we need, and name what does not fit."""
    found: Findings = {"python": platform.python_version(), "lit-awm": importlib.metadata.version("lit-awm")}
    for line in importlib.metadata.requires("lit-awm") or []:
        requirement = Requirement(line)
        version = _version(requirement.name)
        is_extra = requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})
        if requirement.name != "lit-awm" and (version is not None or not is_extra):
            found[requirement.name] = version or "missing"
        if version is None and not is_extra:
            problems.append(f"{requirement.name} is missing: pip install '{requirement.name}{requirement.specifier}'")
        elif version is not None and not requirement.specifier.contains(version, prereleases=True):
            problems.append(
                f"{requirement.name} must be {requirement.specifier}, got {version}: "
                f"pip install '{requirement.name}{requirement.specifier}'"
            )
    for bad, reason in ((Requirement(line), reason) for line, reason in BAD_VERSIONS):
        version = _version(bad.name)
        if version is not None and bad.specifier.contains(version, prereleases=True):
            problems.append(f"{bad.name} {version} must not be installed: {reason}")
    return found


def _version(name: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None


def _devices() -> Findings:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else None
    found: Findings = {"cpu": f"{os.cpu_count()} cores ({platform.machine()}), {torch.get_num_threads()} threads"}
    found["memory"] = None if memory is None else f"{memory:.1f} GiB"
    names = []
    for index in range(torch.cuda.device_count()):
        of_gpu = torch.cuda.get_device_properties(index)
        names.append(f"{of_gpu.name} ({of_gpu.total_memory / 2**30:.0f} GiB)")
    found["gpus"] = ", ".join(names) or "none"
    found["compiler"] = shutil.which("c++") or shutil.which("g++") or "none: `compile_decoding` needs one on a CPU"
    return found


def _try(recipe: list[str], problems: list[str]) -> Findings:
    """Build what a recipe describes, take a few updates of each phase, and estimate what the whole run takes."""
    stopwatch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        cli = make_cli(resolve_recipes(recipe), run=False)
        trainer, module, data = cli.trainer, cli.model, cli.datamodule
        found = {"device": str(trainer.strategy.root_device), **_check_folder(trainer, problems)}
        if not isinstance(data, ExperienceDataModule) or not isinstance(module, AlternatingModule):
            return found | {"estimate": "for an AlternatingModule with an ExperienceDataModule only"}
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                check_env_specs(make_env(data.env_name, 2, episode_length=data.env.episode_length, **data.env_options))
            found["environment"] = f"{data.env.name}: its specs hold"
        except (AssertionError, ValueError) as error:
            problems.append(f"the specs of {data.env_name} do not hold: {str(error).splitlines()[0]}")
        short = Trainer(
            max_epochs=1,
            limit_train_batches=len(module.phases) * TRIED,
            accelerator=trainer.strategy.root_device.type.replace("cuda", "gpu"),
            devices=1,
            precision=trainer.precision,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[stopwatch],
            default_root_dir=folder,
        )
        begin = time.perf_counter()
        try:
            short.fit(module, data)
        except (ValueError, RuntimeError) as error:
            problems.append(str(error).splitlines()[0])
            return found
        whole = time.perf_counter() - begin
    return found | _estimate(stopwatch, data, whole, trainer.max_epochs or 1)


def _check_folder(trainer: Trainer, problems: list[str]) -> Findings:
    folder = Path(trainer.logger.save_dir if trainer.logger and trainer.logger.save_dir else trainer.default_root_dir)
    try:
        check_writable(folder, "trainer.logger.save_dir")
    except ValueError as error:
        problems.append(str(error))
    existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    return {"disk": f"{shutil.disk_usage(existing).free / 2**30:.1f} GiB free for {folder}"}


def _estimate(stopwatch: Stopwatch, data: ExperienceDataModule, whole: float, epochs: int) -> Findings:
    """Return estimates from the updates that were timed; the first of a phase, which warms up, does not count."""
    steady = {phase: sorted(times[1:])[len(times[1:]) // 2] for phase, times in stopwatch.seconds.items() if times[1:]}
    around = max(0.0, whole - sum(map(sum, stopwatch.seconds.values())))  # all rounds of the warm-up, one evaluation
    rounds = 1 + 2 * (epochs - 1) / (data.warmup_rounds + 1)  # later each iteration collects once and evaluates once
    seconds = epochs * sum(data.updates[phase] * time for phase, time in steady.items()) + rounds * around
    names = {"teacher": "teacher update", "world_model": "model update", "policy": "policy update"}
    found: Findings = {names[phase]: f"{1000 * time:.1f} ms" for phase, time in steady.items()}
    found["run"] = f"{epochs} iterations, about {seconds / 60:.1f} minutes"
    found["peak memory"] = _peak_memory()
    if torch.cuda.is_available():
        found["GPU peak memory"] = f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
    return found


def _peak_memory() -> str:
    try:
        import resource
    except ImportError:  # on Windows
        return "not known on this system"
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.1f} GiB"
