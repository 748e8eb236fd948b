"""Compare methods by the runs that there are: tables of numbers, without a figure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median as middle
from typing import Any

from lit_awm.analysis.runs import Run
from lit_awm.analysis.statistics import (
    Interval,
    bootstrap,
    improvement,
    median,
    performance_profile,
)

SCORES = ("regret", "gap", "cost")
Row = dict[str, Any]


def methods_of(runs: Iterable[Run]) -> list[str]:
    """Return the names of all methods, in order."""
    return sorted({run.method for run in runs})


def tasks_of(runs: Iterable[Run]) -> list[str]:
    """Return the names of all tasks, in order."""
    return sorted({run.task for run in runs})


def of(runs: Iterable[Run], method: str | None = None, task: str | None = None) -> list[Run]:
    """Return the runs of a method, of a task, or of both."""
    return [run for run in runs if method in (None, run.method) and task in (None, run.task)]


def scores_of(runs: Sequence[Run], method: str, tasks: Sequence[str], score: str = "regret") -> list[list[float]]:
    """Return the last scores of a method's runs, a row for each task; runs without the score are left out."""
    found = [[run.last[score] for run in of(runs, method, task) if score in run.last] for task in tasks]
    return [row for row in found if row]


def shared_tasks(runs: Sequence[Run], score: str = "regret") -> list[str]:
    """Return the tasks for which every method has a run with the score."""
    return [
        task for task in tasks_of(runs) if all(scores_of(runs, method, [task], score) for method in methods_of(runs))
    ]


def unfinished(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that have been evaluated less often than others of the same method and task."""
    most: dict[tuple[str, str], int] = {}
    for run in runs:
        key = run.method, run.task
        most[key] = max(most.get(key, 0), len(run.evaluations))
    return [run for run in runs if len(run.evaluations) < most[run.method, run.task]]


def typical(values: Iterable[float]) -> float:
    """Return the median of what was logged, for example of training times; NaN if nothing was."""
    logged = [value for value in values if not math.isnan(value)]
    return middle(logged) if logged else math.nan


def aggregate(runs: Sequence[Run], score: str = "regret") -> list[Row]:
    """Return a row for each method: interquartile mean with its interval and median, over the tasks that all share."""
    tasks, rows = shared_tasks(runs, score), []
    for method in methods_of(runs) if tasks else []:
        scores = scores_of(runs, method, tasks, score)
        rows.append(
            {
                "method": method,
                "score": score,
                "tasks": len(tasks),
                "runs": sum(map(len, scores)),
                "iqm": bootstrap(scores),
                "median": median(scores),
                "least_runs": min(map(len, scores)),
                "seconds": typical(run.seconds for task in tasks for run in of(runs, method, task)),
                "memory_mb": typical(run.memory_mb for task in tasks for run in of(runs, method, task)),
            }
        )
    return sorted(rows, key=lambda row: row["iqm"].estimate)


def final_scores(runs: Sequence[Run]) -> list[Row]:
    """Return a row for each task and method: the last scores of its runs, as median with the range."""
    rows = []
    for task in tasks_of(runs):
        for method in methods_of(of(runs, task=task)):
            chosen = of(runs, method, task)
            row: Row = {"task": task, "method": method, "runs": len(chosen)}
            for score in ("env_steps", *SCORES):
                values = [run.last[score] for run in chosen if score in run.last]
                row[score] = Interval(middle(values), min(values), max(values)) if values else None
            row["seconds"] = typical(run.seconds for run in chosen)
            row["memory_mb"] = typical(run.memory_mb for run in chosen)
            rows.append(row)
    return rows


def improvements(runs: Sequence[Run], score: str = "regret") -> dict[tuple[str, str], Interval]:
    """Return for each pair of methods the probability that a run of the first one costs less, with its interval."""
    tasks, methods = shared_tasks(runs, score), methods_of(runs)
    tables = {method: scores_of(runs, method, tasks, score) for method in methods} if tasks else {}
    return {
        (ours, theirs): improvement(tables[ours], tables[theirs])
        for ours in tables
        for theirs in tables
        if ours != theirs
    }


def profiles(runs: Sequence[Run], thresholds: Sequence[float], score: str = "regret") -> dict[str, list[float]]:
    """Return for each method the share of runs whose score is at most each threshold, over the tasks that all share."""
    tasks = shared_tasks(runs, score)
    return {
        method: performance_profile(scores_of(runs, method, tasks, score), thresholds).tolist()
        for method in (methods_of(runs) if tasks else [])
    }


def by_length(runs: Sequence[Run], score: str = "regret") -> list[Row]:
    """Return for each method and length of episodes the interquartile mean over the systems that all share.

    Systems with episodes of one length alone are left out.
    """
    systems: dict[str, list[Run]] = {}
    for run in runs:
        if score in run.last:
            systems.setdefault(run.env, []).append(run)
    systems = {env: found for env, found in systems.items() if len({run.episode_length for run in found}) > 1}
    cells = {(run.method, run.episode_length) for found in systems.values() for run in found}
    complete = [found for found in systems.values() if {(run.method, run.episode_length) for run in found} == cells]
    rows = []
    for method, length in sorted(cells) if complete else []:
        mine = [
            [run.last[score] for run in found if (run.method, run.episode_length) == (method, length)]
            for found in complete
        ]
        rows.append({"method": method, "episode_length": length, "systems": len(complete), "iqm": bootstrap(mine)})
    return rows


def learning_curve(runs: Sequence[Run], score: str) -> list[tuple[float, Interval]]:
    """Return, against environment steps, the median of a score over runs of one method and task, with its range.

    Only steps at which all of the runs were evaluated are kept. A score that is not a number is as bad as can be.
    """
    curves = [
        {
            point["env_steps"]: math.inf if math.isnan(point[score]) else point[score]
            for point in run.evaluations
            if score in point
        }
        for run in runs
    ]
    steps = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    values = [[curve[step] for curve in curves] for step in steps]
    return [(step, Interval(middle(each), min(each), max(each))) for step, each in zip(steps, values, strict=True)]
