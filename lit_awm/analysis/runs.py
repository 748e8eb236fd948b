"""Read what runs have left in their folders: recipe and log."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lit_awm.checkpoints import RECIPE, flatten

LOG = "metrics.csv"
EVALUATED = {"env_steps": "env_steps"} | {f"eval/{name}": name for name in ("cost", "regret", "gap", "target_error")}
LENGTHS = ("horizon", "length", "agent_updates")  # ends of settings that may be the length of an episode
OF_TASK = ("data.init_args.env", "data.init_args.env_options", "data.init_args.episode_length")
OF_RUN = (
    *("seed_everything", "data.init_args.seed", "ckpt_path", "resume", "config", "weights_only", "trainer.logger"),
    *("trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.default_root_dir"),
)
WATCHERS = (  # callbacks that nothing depends on
    *("AlternatingProgress", "TQDMProgressBar", "RichProgressBar", "RunSummary", "SaveOnInterrupt", "ModelCheckpoint"),
    *("GradientNormMonitor", "GradientFidelity", "Throughput", "TrajectoryFigure", "PolicyVideo"),
)
STUDY = "study.json"  # in the folder of a study, whose runs lie in METHOD/TASK/SEED/VERSION


@dataclass
class Run:
    """A run of a recipe, as its folder tells.

    Attributes:
        folder: Where its log is.
        env: Name of the system, with the options that it was given.
        system: Its name alone.
        episode_length: Steps of an episode.
        seed: Of everything that is random.
        settings: The recipe by the names of its settings, without those of the task and of the run itself.
        evaluations: Of each one ``env_steps``, ``cost``, where the optimum is known ``regret`` and ``gap``, and
            ``target_error`` where there is an end state.
        gradient_norms: Environment steps at the evaluation that follows, and norm of the gradient: of the policy in a
            world model, or of all that an agent without one trains. Of every row of the log that has one.
        seconds: Training time; NaN where it was not logged.
        memory_mb: The most memory that the process had, in 10^6 bytes; NaN where it was not logged.
        data_seed: Of the experience.
        study: What the study that the run is part of calls its method, and the settings of the study; None without one.
        method: What the run is called in comparisons.
    """

    folder: Path
    env: str
    system: str
    episode_length: int
    seed: int
    settings: dict[str, str]
    evaluations: list[dict[str, float]]
    gradient_norms: list[tuple[float, float]]
    seconds: float
    memory_mb: float
    data_seed: int | None
    study: tuple[str, str] | None
    method: str = field(default="")

    @property
    def task(self) -> str:
        """Name of the system, with the length of its episodes."""
        return f"{self.env}, {self.episode_length} steps"

    @property
    def last(self) -> dict[str, float]:
        """The last evaluation."""
        return self.evaluations[-1]

    @property
    def digest(self) -> str:
        """Eight letters that tell settings apart."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def general(self) -> dict[str, str]:
        """The settings, with a mark in place of lengths that are that of an episode."""
        own = str(self.episode_length)
        return {
            name: "of an episode" if value == own and name.endswith(LENGTHS) else value
            for name, value in self.settings.items()
        }


def find_runs(paths: Iterable[Path]) -> list[Run]:
    """Return the runs in some folders and below them that were evaluated at least once, each with its method's name.

    Methods are called what a study calls them, else after the model; where one name would stand for different settings,
    or for studies of different settings, it is numbered. Of several runs of the same method, task and seed, as where
    one was begun anew, the one that went furthest counts.

    Raises:
        ValueError: If a path is no folder, or there is no such run below it, or what is there cannot be read.
    """
    runs = []
    for path in paths:
        if not path.is_dir():
            raise ValueError(f"runs must be folders, got {str(path)!r}.")
        folders = [recipe.parent for recipe in sorted(path.rglob(RECIPE))]
        found = [run for run in map(read_run, folders) if run is not None and run.evaluations]
        if not found:
            raise ValueError(
                f"runs must be folders of runs, got {str(path)!r}: nothing in it has a {RECIPE} and a {LOG} with an "
                "evaluation. They are written by `lit-awm fit` with the logger of the recipes."
            )
        runs += found
    _name_methods(runs)
    furthest: dict[tuple[Any, ...], Run] = {}
    for run in runs:
        is_seeded = not isinstance(run.seed, bool | None)  # else two runs are never the same one
        key = run.method, run.task, run.seed, run.data_seed, None if is_seeded else run.folder
        if key not in furthest or run.last["env_steps"] >= furthest[key].last["env_steps"]:
            furthest[key] = run
    return list(furthest.values())


def read_run(folder: Path) -> Run | None:
    """Return the run of a folder, or None of one that collects nothing, such as one that learns from recordings.

    Raises:
        ValueError: If its recipe or its log cannot be read, or its last scores are not finite.
    """
    try:
        recipe = yaml.safe_load((folder / RECIPE).read_text(encoding="utf-8"))
        data = recipe["data"]["init_args"]
        if "path" in data and "episode_length" not in data:  # of recordings
            return None
        length, seed = data["episode_length"], recipe["seed_everything"]
        trees = {key: recipe[key] for key in ("trainer", "model", "data")}
        trees["trainer"] = trees["trainer"] | {"callbacks": _without_watchers(trees["trainer"].get("callbacks"))}
        env = data["env"] + "".join(
            f", {name} {value}" for name, value in sorted((data.get("env_options") or {}).items())
        )
        rows = _read_log(folder / LOG)
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} must hold a run of a recipe with an environment: {error!r}") from error
    settings = {name: str(value) for name, value in flatten(trees) if not name.startswith((*OF_TASK, *OF_RUN))}
    evaluations = [
        {short: row[name] for name, short in EVALUATED.items() if name in row}
        for row in rows
        if "eval/cost" in row and "env_steps" in row
    ]
    if evaluations and not all(map(math.isfinite, evaluations[-1].values())):
        raise ValueError(f"{folder} must have finite scores, got {evaluations[-1]}. Leave the run out.")
    seconds, memory = (
        next((row[name] for row in reversed(rows) if name in row), math.nan)
        for name in ("time/elapsed_s", "memory/peak_mb")
    )
    norms = list(_gradient_norms(rows))
    seeds, study = (seed, data.get("seed")), _study_of(folder)
    return Run(
        folder, env, data["env"], length, seeds[0], settings, evaluations, norms, seconds, memory, seeds[1], study
    )


def _without_watchers(callbacks: Any) -> Any:
    if not isinstance(callbacks, list):
        return callbacks
    return [each for each in callbacks if each["class_path"].rpartition(".")[2] not in WATCHERS]


def _study_of(folder: Path) -> tuple[str, str] | None:
    """Return the method of a study that a run is part of, and the settings of the study; None if it is of none."""
    parents = folder.resolve().parents
    if len(parents) < 4 or not (path := parents[3] / STUDY).is_file():
        return None
    settings = json.loads(path.read_text(encoding="utf-8"))
    return parents[2].name, json.dumps([settings.get("episodes"), settings.get("options")])


def differences(runs: Iterable[Run]) -> dict[str, dict[str, str]]:
    """Return the settings in which methods differ: for each setting what it is for each method, "" where it is not.

    What is compared is a run of each on the first task that they share; of those without it on their own first one.
    """
    of_tasks: dict[str, dict[str, Run]] = {}
    for run in runs:
        of_tasks.setdefault(run.method, {}).setdefault(run.task, run)
    shared = [task for task in next(iter(of_tasks.values())) if all(task in found for found in of_tasks.values())]
    methods = {method: found[shared[0]] if shared else next(iter(found.values())) for method, found in of_tasks.items()}
    first = next(iter(methods.values()))
    names = sorted({name for run in methods.values() for name in run.settings})
    return {
        name: {method: run.settings.get(name, "") for method, run in methods.items()}
        for name in names
        if any(run.general.get(name, "") != first.general.get(name, "") for run in methods.values())
    }


def _read_log(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def _gradient_norms(rows: list[dict[str, float]]) -> Iterator[tuple[float, float]]:
    """Yield each gradient norm with the steps at the evaluation that follows, or the last one if none does."""
    pending: list[float] = []
    steps = 0.0
    for row in rows:
        norm = row.get("policy/grad_norm", row.get("agent/grad_norm"))
        if norm is not None:
            pending.append(norm)
        if "env_steps" in row:
            steps = row["env_steps"]
            yield from ((steps, each) for each in pending)
            pending = []
    yield from ((steps, each) for each in pending)


def _name_methods(runs: list[Run]) -> None:
    kinds: dict[str, list[Any]] = {}  # what tells the methods of one name apart
    for run in runs:
        run.method = _model_name(run.settings) if run.study is None else run.study[0]
        known = kinds.setdefault(run.method, [])
        if (kind := run.study or run.general) not in known:
            known.append(kind)
    for run in runs:
        known = kinds[run.method]
        if len(known) > 1:
            run.method += f" {1 + known.index(run.study or run.general)}"


def _model_name(settings: dict[str, str]) -> str:
    """Return what a recipe's model is called: ``actions``, ``actions RecurrentBackbone taught``, ``SAC``."""
    model = settings.get("model.class_path", "").rpartition(".")[2]
    world_model = settings.get("model.init_args.world_model.class_path", "").rpartition(".")[2]
    if not world_model:
        return model.removesuffix("Module")
    backbone = settings.get("model.init_args.world_model.init_args.backbone.class_path", "").rpartition(".")[2]
    suffix = "" if backbone in ("", "CausalTransformer") else f" {backbone}"
    taught = " taught" if "model.init_args.teacher.class_path" in settings else ""
    return world_model.removesuffix("WorldModel").lower() + suffix + taught
