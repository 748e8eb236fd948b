"""Methods on systems, with several seeds: every run a process of its own, and a table that grows as they end."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from tqdm import tqdm

from lit_awm.analysis.runs import find_runs
from lit_awm.checkpoints.files import write_atomically
from lit_awm.envs import load_optimum, myriad
from lit_awm.recipes import FAMILIES, UNTAUGHT, options_of
from lit_awm.studies.executors import Executor, run_process, run_side_by_side

SYSTEMS = [getattr(myriad, name).name for name in myriad.__all__]
STEPS = 100  # of an episode, for which a budget of environment steps is stated
WARMUP = 12  # episodes with random controls, the same for every method
PACKAGES = ("lit-awm", "torch", "lightning", "torchrl", "tensordict")
CLI = (sys.executable, "-m", "lit_awm.cli")
RESULT = "result.json"  # of a run, once it has ended
SCORES = ("regret", "gap")
Row = dict[str, Any]


class Method(NamedTuple):
    """A way to control a system.

    Attributes:
        recipe: The recipe that it starts from; the common one stands for that of the system.
        num_envs: Episodes that are collected between updates.
        trials: Episodes without noise after the updates.
        family: Of world models that it puts into the recipe, or None.
        options: Further options of the recipe.
        updates_per_step: Updates for each environment step; 0 for those of the recipe.
        context: Steps that its policy looks back by its recipe, in shorter episodes all; 0 for the present alone.
    """

    recipe: str
    num_envs: int
    trials: int = 0
    family: str | None = None
    options: Sequence[str] = ()
    updates_per_step: int = 0
    context: int = 0

    def iterations(self, episodes: int) -> int:
        """Return how many outer iterations there are in some real episodes: one at least."""
        return max(1, (episodes - WARMUP + self.num_envs) // (self.num_envs + self.trials))

    def collected(self, episodes: int, num_envs: int | None = None, warmup: int = WARMUP) -> int:
        """Return how many real episodes there are when as many as ``episodes`` of 100 steps are allowed."""
        iterations, num_envs = self.iterations(episodes), num_envs or self.num_envs
        return warmup + (iterations - 1) * num_envs + iterations * self.trials

    def at_once(self, episodes: int, length: int) -> tuple[int, int]:
        """Return how many episodes are collected between updates, and how many with random controls.

        Of episodes that are shorter than 100 steps there are as many more as the same number of steps has room for.
        """
        times = max(1, STEPS // length)
        warmup, most = times * WARMUP, times * max(episodes, self.collected(episodes))
        rounds = range(times * (self.num_envs + self.trials), 0, -1)
        fitting = (n for n in rounds if warmup % n == 0 and self.collected(episodes, n, warmup) <= most)
        return next(fitting), warmup


COMMON = "common"
AGENTS = {"sac": Method("sac", 1, updates_per_step=2), "online_dt": Method("online_dt", 1, context=20)}
METHODS = {
    **{family: Method(COMMON, 3, 1, family) for family in FAMILIES},
    "actions_untaught": Method(COMMON, 3, 1, "actions", UNTAUGHT),  # no labelled trajectories, one turn an iteration
    **AGENTS,
}
LOOKAHEAD = 20  # steps, of the reference that plans anew in every step, by the exact model
REFERENCES = ("random", "constant", "receding", "optimum")  # what runs are compared with


class Job(NamedTuple):
    """One run of a method, or one of the references."""

    method: str
    system: str
    episode_length: int
    seed: int

    def folder(self, out: Path) -> Path:
        """Return the folder of the run."""
        return out / self.method / f"{self.system}_{self.episode_length}" / f"seed_{self.seed}"

    def command(self, out: Path, episodes: int, options: Sequence[str] = ()) -> list[str]:
        """Return the command that begins the run, or goes on with it; or finds the cost of a reference."""
        if self.method in REFERENCES:
            length = f"--episode_length={self.episode_length}"
            return [*CLI, "oracle", self.system, length, f"--lookahead={LOOKAHEAD}", "--json"]
        method, folder = METHODS[self.method], self.folder(out)
        iterations, (num_envs, warmup) = method.iterations(episodes), method.at_once(episodes, self.episode_length)
        recipe = self.system if method.recipe == COMMON else method.recipe
        files = [word for word in options if word.startswith("--config=")]  # of which a job decides more than they do
        options = [word for word in options if word not in files]
        words = [
            *("fit", f"--config={recipe}", *files, "--resume", f"--seed_everything={self.seed}"),
            *(f"--data.env={self.system}", f"--data.episode_length={self.episode_length}"),
            *(f"--data.num_envs={num_envs}", f"--data.warmup_episodes={warmup}"),
            *(f"--trainer.max_epochs={iterations}", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
            *(f"--trainer.logger.save_dir={folder.parent}", f"--trainer.logger.name={folder.name}"),
        ]
        swap = [] if method.family is None else options_of(method.family, self.episode_length)
        updates = method.updates_per_step * num_envs * self.episode_length
        pace = [f"--data.agent_updates={updates}"] if updates else []
        is_short = self.episode_length < method.context
        context = [f"--model.policy.context_length={self.episode_length}"] if is_short else []
        return [*CLI, *words, *pace, *context, *swap, *method.options, *options]


def run_study(
    jobs: Sequence[Job],
    out: Path,
    episodes: int,
    workers: int,
    options: Sequence[str] = (),
    progress: bool = True,
    executor: Executor = "local",
) -> tuple[list[Row], list[Job]]:
    """Run all jobs that have not ended before; ``results.csv`` grows as they end.

    Args:
        jobs: What to run.
        out: Folder of all runs; the same folder again goes on where it was interrupted.
        episodes: Real episodes of a run, at most; see :func:`round_down`.
        workers: Runs side by side, each on one thread.
        options: Further options of ``lit-awm fit``, for all runs.
        progress: Whether to show a progress bar.
        executor: Where they run, see :func:`~lit_awm.studies.executors.run_side_by_side`.

    Returns:
        The rows of all jobs that have ended, and the jobs that have failed; what those said is in ``output.txt`` of
        their folders.

    Raises:
        ValueError: If the folder holds a study with another number of episodes, other options, files or versions.
    """
    out.mkdir(parents=True, exist_ok=True)
    _check_settings(out, {"episodes": episodes, "options": list(options), "versions": _versions()} | _files(options))
    todo, failed = [job for job in jobs if not (job.folder(out) / RESULT).is_file()], list[Job]()
    run = partial(_run, out=out.resolve(), episodes=episodes, options=options)
    with tqdm(total=len(jobs), desc="runs", disable=not progress) as bar:
        bar.update(len(jobs) - len(todo))
        for job, has_ended_well in run_side_by_side(run, todo, workers, executor):
            if not has_ended_well:
                failed.append(job)
            bar.update()
            bar.set_postfix_str(" ".join(map(str, job)))
            _write_table(out, jobs)
    return _write_table(out, jobs), sorted(failed)


def run_whole_study(
    jobs: Sequence[Job], out: Path, episodes: int, workers: int, options: Sequence[str] = (), progress: bool = True
) -> list[Row]:
    """Return the rows of all jobs, as :func:`run_study` does.

    Raises:
        RuntimeError: If a job has failed.
    """
    rows, failed = run_study(jobs, out, episodes, workers, options, progress)
    if failed:
        raise RuntimeError(f"{len(failed)} runs have failed; the first said why in {failed[0].folder(out)}/output.txt")
    return rows


def round_down(env_steps: int) -> int:
    """Return as many episodes of 100 steps as every method can collect within some environment steps."""
    least = WARMUP + max(method.trials for method in METHODS.values())
    fitting = (
        count
        for count in range(env_steps // STEPS, least, -1)
        if all(method.collected(count) == count for method in METHODS.values())
    )
    return next(fitting, least)


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def _files(options: Sequence[str]) -> dict[str, Any]:
    """Return a digest of each file of options, since what is in a file of the same name may change; of none nothing."""
    names = (option.partition("=")[2] for option in options if option.startswith("--config="))
    found = {name: hashlib.sha256(Path(name).read_bytes()).hexdigest()[:8] for name in names if Path(name).is_file()}
    return {"files": found} if found else {}


def _check_settings(out: Path, settings: dict[str, Any]) -> None:
    """Keep what all runs of a folder have in common, and reject what would mix runs that do not."""
    path = out / "study.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else settings
    if not path.is_file() and any(out.glob(f"*/*/*/{RESULT}")):
        raise ValueError(f"out must be a new folder, got {out}: it has results of which nobody knows how they came.")
    if before != settings:
        differing = [name for name in settings if before.get(name) != settings[name]]
        words = "; ".join(f"{name} {before.get(name)} before, {settings[name]} now" for name in differing)
        raise ValueError(f"out must be a new folder for other settings, got {out}: {words}.")
    write_atomically(path, json.dumps(settings).encode())


def _run(job: Job, out: Path, episodes: int, options: Sequence[str]) -> bool:
    """Do a job, write its row, and tell whether it ended well; what goes wrong is told in its output."""
    folder = job.folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        row = _refer(job, out) if job.method in REFERENCES else _fit(job, out, episodes, options)
        write_atomically(folder / RESULT, json.dumps(row).encode())
    except Exception:  # of one job, which is not to end the others
        with (folder / "output.txt").open("a", encoding="utf-8") as output:
            traceback.print_exc(file=output)
        return False
    return True


def _fit(job: Job, out: Path, episodes: int, options: Sequence[str]) -> Row:
    """Fit in a process of its own, or go on with that, and return the row."""
    command = job.command(out, episodes, options)
    with (job.folder(out) / "output.txt").open("ab") as output:
        process = run_process(command, stdout=output, stderr=subprocess.STDOUT, env=_environment())
    if process.returncode != 0:
        raise RuntimeError(f"lit-awm fit has ended with status {process.returncode}")
    (run,) = find_runs([job.folder(out)])
    if (run.system, run.episode_length, run.seed) != job[1:]:
        raise RuntimeError(f"an option has made another job of this one: {run.task}, seed {run.seed}")
    return {
        **job._asdict(),
        **run.last,
        "train_seconds": run.seconds,
        "peak_memory_mb": None if math.isnan(run.memory_mb) else run.memory_mb,
        "recipe": run.digest,
        "cpu": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": f"{date.today():%Y-%m-%d}",
        **_versions(),
    }


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def _refer(job: Job, out: Path) -> Row:
    """Return the row of a reference; without a cost where the optimum of so long episodes is not stored."""
    optimum, cost = load_optimum(job.system, episode_length=job.episode_length), None
    if job.method == "receding":
        command = job.command(out, 0)
        with (job.folder(out) / "output.txt").open("ab") as output:
            found = run_process(command, stdout=subprocess.PIPE, stderr=output, env=_environment())
        found.check_returncode()
        cost = json.loads(found.stdout)["cost"]
    elif optimum is not None:
        costs = {"random": optimum.random_cost, "constant": optimum.constant_cost, "optimum": optimum.cost}
        cost = costs[job.method]
    row = {**job._asdict(), "env_steps": 0, "cost": cost}
    if optimum is not None and cost is not None:
        row |= {"regret": optimum.regret(cost), "gap": optimum.gap(cost)}
    return row


def _write_table(out: Path, jobs: Iterable[Job]) -> list[Row]:
    """Return the rows of all jobs that have ended; write ``results.csv``, with all others in the folder too."""
    rows = list(_ended(out, jobs))
    others = sorted(set(out.glob(f"*/*/*/{RESULT}")) - {job.folder(out) / RESULT for job in jobs})
    table = [*rows, *(json.loads(path.read_text(encoding="utf-8")) for path in others)]
    names = list(dict.fromkeys(name for row in table for name in row))
    with (out / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(table)
    return rows


def _ended(out: Path, jobs: Iterable[Job]) -> Iterator[Row]:
    for job in sorted(jobs):
        path = job.folder(out) / RESULT
        if path.is_file():
            yield json.loads(path.read_text(encoding="utf-8"))


def as_comparison(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a table: for each system and length the median regret of every method, and the gap."""
    methods = [name for name in (*METHODS, *REFERENCES) if any(row["method"] == name for row in rows)]
    yield "| system | steps | " + " | ".join(methods) + " |"
    yield "|---|---|" + "---|" * len(methods)
    for system, length in sorted({(row["system"], row["episode_length"]) for row in rows}):
        of_task = [row for row in rows if (row["system"], row["episode_length"]) == (system, length)]
        cells = []
        for method in methods:
            scores = {name: _values([row for row in of_task if row["method"] == method], name) for name in SCORES}
            regret, gap = (f"{median(values):.2%}" if values else "" for values in scores.values())
            cells.append(f"{regret} ({gap})" if gap else regret)
        yield f"| {system} | {length} | " + " | ".join(cells) + " |"


def as_markdown(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a table: for each system, length and method the median over seeds, with the range."""
    yield "| system | steps | method | seeds | environment steps | cost | regret | gap | time | memory |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["system"], row["episode_length"], row["method"]), []).append(row)
    for (system, length, method), runs in sorted(groups.items()):
        cells = [system, length, method, len(runs), _spread(runs, "env_steps", ",.0f"), _spread(runs, "cost", ".6g")]
        cells += [_spread(runs, "regret", ".3%"), _spread(runs, "gap", ".2%")]
        cells += [_spread(runs, "train_seconds", ".0f", " s"), _spread(runs, "peak_memory_mb", ".0f", " MB")]
        yield "| " + " | ".join(map(str, cells)) + " |"


def _values(rows: Sequence[Row], name: str) -> list[float]:
    return [row[name] for row in rows if row.get(name) is not None]


def _spread(rows: Sequence[Row], name: str, form: str, unit: str = "") -> str:
    values = _values(rows, name)
    if not values:
        return "-"
    low, middle, high = (f"{value:{form}}" for value in (min(values), median(values), max(values)))
    return (middle if low == high else f"{middle} ({low} to {high})") + unit
