"""One page about runs: self-contained HTML, with the same numbers as CSV and the same figures as PNG and SVG."""

from __future__ import annotations

import csv
import math
import os
import platform
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from lit_awm.analysis import report_figures as figures
from lit_awm.analysis.comparison import (
    aggregate,
    by_length,
    final_scores,
    improvements,
    methods_of,
    of,
    shared_tasks,
    tasks_of,
    unfinished,
)
from lit_awm.analysis.runs import Run, differences
from lit_awm.analysis.statistics import Interval
from lit_awm.checkpoints import RECIPE

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ --ink: #1c1e21; --paper: #fdfdfc; --faint: #6a6f76; --line: #d9dbde; --head: #f1f2f3; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e6e7e9; --paper: #16181b; --faint: #9aa0a8; --line: #34383d; --head: #202328; }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.55 system-ui, sans-serif; }}
h1 {{ font-size: 1.6rem; margin: 0 0 .25rem; }}
h2 {{ font-size: 1.2rem; margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }}
p {{ max-width: 46rem; }}
.faint, figcaption {{ color: var(--faint); font-size: .9rem; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }}
th {{ background: var(--head); }}
th:first-child, td:first-child, td.text {{ text-align: left; }}
figure {{ margin: 1rem 0; }}
svg {{ display: block; max-width: 100%; min-width: 30rem; height: auto; color: var(--ink); font-family: inherit; }}
summary {{ cursor: pointer; }}
pre {{ overflow-x: auto; background: var(--head); padding: .7rem; font-size: .85rem; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
ENOUGH = 5  # runs of a task, for a bootstrap
NO_OPTIMUM = "No optimum is known for these tasks, so that scores are costs: no statistics over tasks."


def write_report(runs: Sequence[Run], folder: Path, title: str, command: str) -> Path:
    """Write ``report.html``, and beside it CSV tables, and figures as PNG and SVG; return the page's path.

    Args:
        runs: From :func:`~lit_awm.analysis.runs.find_runs`.
        folder: What to write to; it is made if need be.
        title: Of the page.
        command: What makes the page again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    body = "\n".join(_sections(runs, folder, title, command))
    path = folder / "report.html"
    path.write_text(PAGE.format(title=escape(title), body=body), encoding="utf-8")
    return path


def _sections(found: Sequence[Run], folder: Path, title: str, command: str) -> Iterator[str]:
    behind = unfinished(found)
    runs = [run for run in found if run not in behind]
    score = "regret" if any("regret" in run.last for run in runs) else "cost"
    methods, tasks = methods_of(runs), tasks_of(runs)
    counts = f"{_count(runs, 'run')} of {_count(methods, 'method')} on {_count(tasks, 'task')}"
    where = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    yield f"<h1>{escape(title)}</h1>"
    yield f'<p class="faint">{counts}. Made {date.today():%Y-%m-%d} ({escape(where)}).</p>'
    yield (
        "<p>Regret is 0&nbsp;% for the optimum and 100&nbsp;% for random controls; gap is 0&nbsp;% for the optimum and "
        "100&nbsp;% for the best constant control. All scores are those of the last evaluation, none of the best.</p>"
    )
    if behind:
        names = ", ".join(str(run.folder) for run in behind)
        yield f"<p>Left out, since others of their method and task have been evaluated more often: {escape(names)}.</p>"
    if score == "regret" and len(methods) > 1:
        yield from _over_tasks(runs, folder)
    elif score == "cost":
        yield f"<p>{NO_OPTIMUM}</p>"
    yield from _every_task(runs, folder)
    scored = [task for task in tasks if any(score in run.last for run in of(runs, task=task))]
    curves = partial(figures.learning_curves, runs, score, scored)
    yield _figure("learning_curves", curves, folder, "Median over seeds, and their range.", "Learning curves")
    if others := [task for task in tasks if task not in scored]:
        curves = partial(figures.learning_curves, runs, "cost", others)
        yield _figure("learning_curves_cost", curves, folder, NO_OPTIMUM, "Learning curves of other tasks")
    if len({run.episode_length for run in runs}) > 1 and score == "regret" and by_length(runs):
        caption = "Interquartile mean over the systems that all share, with a 95 % interval."
        yield _figure("episode_length", partial(figures.length_figure, runs), folder, caption, "Length of episodes")
    if any(run.gradient_norms for run in runs):
        norms = partial(figures.gradient_norms, runs)
        caption = (
            "Before clipping, as logged: of a policy in a world model, or of all that an agent without one trains."
        )
        yield _figure("gradient_norms", norms, folder, caption, "Norm of the gradient")
    differing = differences(runs)
    if differing:
        yield "<h2>What differs between the recipes</h2>"
        table = _table(["setting", *methods], [[name, *map(row.get, methods)] for name, row in differing.items()])
        yield f"<details><summary>{_count(list(differing), 'setting')}</summary>{table}</details>"
    yield "<h2>Again</h2>"
    yield f"<p>This page:</p><pre>{escape(command)}</pre>"
    yield "<p>A run goes on by its recipe:</p>"
    recipes = "\n".join(map(_go_on, runs[:10]))
    more = f"\n... and {len(runs) - 10} more" if len(runs) > 10 else ""
    yield f"<pre>{escape(recipes + more)}</pre>"


def _go_on(run: Run) -> str:
    """Return the command that goes on with a run."""
    version = run.folder.name.removeprefix("version_")
    return f"lit-awm fit --config {shlex.quote(str(run.folder / RECIPE))} --resume --trainer.logger.version {version}"


def _over_tasks(runs: Sequence[Run], folder: Path) -> Iterator[str]:
    """Yield what compares methods over all tasks that they share."""
    shared, rows = shared_tasks(runs), aggregate(runs)
    yield "<h2>Over all tasks</h2>"
    if not rows:
        yield "<p>The methods have no task in common.</p>"
        return
    yield (
        f"<p>Regret over the {_count(shared, 'task')} that all methods share. Brackets are 95&nbsp;% intervals of a "
        "bootstrap that is stratified by task (Agarwal et al., 2021), which needs several runs of a task.</p>"
    )
    if min(row["least_runs"] for row in rows) < ENOUGH:
        yield f"<p>With fewer than {ENOUGH} runs of a task, as here, intervals are narrower than they should be.</p>"
    header = ["method", "interquartile mean", "median", "runs", "training time", "memory"]
    cells = [
        [
            *(row["method"], _estimate(row["iqm"], row), _percent(row["median"]), row["runs"]),
            *(_amount(row["seconds"], "s"), _amount(row["memory_mb"], "MB")),
        ]
        for row in rows
    ]
    yield _table(header, cells)
    _write_csv(folder / "over_tasks.csv", [_spread_out(row) for row in rows])
    pairs, names = improvements(runs), [row["method"] for row in rows]
    yield "<p>Probability that a run of the row's method has less regret than one of the column's:</p>"
    matrix = [
        [
            row["method"],
            *(_improvement(pairs, row, other) for other in rows),
        ]
        for row in rows
    ]
    yield _table(["", *names], matrix)
    profile = partial(figures.performance_profiles, runs)
    yield _figure("performance_profiles", profile, folder, "Further to the left and higher is better.", None)


def _every_task(runs: Sequence[Run], folder: Path) -> Iterator[str]:
    rows = final_scores(runs)
    yield "<h2>Each task</h2>"
    yield '<p class="faint">Median over the runs, with the range.</p>'
    header = ["task", "method", "runs", "environment steps", "cost", "regret", "gap", "training time", "memory"]
    cells = [
        [
            *(row["task"], row["method"], row["runs"], _range(row["env_steps"], "{:,.0f}".format)),
            *(_range(row["cost"], _number), _range(row["regret"], _percent), _range(row["gap"], _percent)),
            *(_amount(row["seconds"], "s"), _amount(row["memory_mb"], "MB")),
        ]
        for row in rows
    ]
    yield _table(header, cells)
    _write_csv(folder / "tasks.csv", [_spread_out(row) for row in rows])
    _write_csv(folder / "evaluations.csv", list(_evaluations(runs)))


def _evaluations(runs: Iterable[Run]) -> Iterator[dict[str, Any]]:
    for run in runs:
        head = {"method": run.method, "env": run.env, "episode_length": run.episode_length, "seed": run.seed}
        for point in run.evaluations:
            yield head | point | {"recipe": run.digest}


def _spread_out(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Interval):
            flat |= {name: value.estimate, f"{name}_low": value.low, f"{name}_high": value.high}
        else:
            flat[name] = value
    return flat


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def _figure(name: str, make: Callable[[], Figure], folder: Path, caption: str, heading: str | None) -> str:
    """Draw a figure, write it to the folder, and return it as a part of the page."""
    figure, svg = figures.draw(make)
    figure.savefig(folder / f"{name}.png", dpi=150)
    (folder / f"{name}.svg").write_text(svg.replace("currentColor", "#1c1e21"), encoding="utf-8")
    title = f"<h2>{escape(heading)}</h2>" if heading else ""
    return f'{title}<figure><div class="scroll">{svg}</div><figcaption>{escape(caption)}</figcaption></figure>'


def _table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(str(each))}</th>" for each in header)
    body = "\n".join(f"<tr>{''.join(f'<td>{escape(str(each))}</td>' for each in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _count(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _percent(value: float, digits: int = 2) -> str:
    return f"{100 * value:.{digits}f} %"


def _number(value: float) -> str:
    return f"{value:.6g}"


def _amount(value: float, unit: str) -> str:
    return "-" if math.isnan(value) else f"{value:.0f} {unit}"


def _estimate(found: Interval, row: dict[str, Any], digits: int = 2) -> str:
    """Return an estimate with its interval, which there is none of with one run for each task."""
    estimate, low, high = (_percent(value, digits) for value in found)
    return estimate + (f" [{low}, {high}]" if row["runs"] > row["tasks"] else " (no interval)")


def _improvement(pairs: dict[tuple[str, str], Interval], row: dict[str, Any], other: dict[str, Any]) -> str:
    """Return the estimate for a pair of methods, with an interval if either of them has several runs of a task."""
    pair = row["method"], other["method"]
    return _estimate(pairs[pair], max(row, other, key=lambda each: each["runs"]), 0) if pair in pairs else ""


def _range(interval: Interval | None, form: Callable[[float], str]) -> str:
    if interval is None:
        return "-"
    if interval.low == interval.high:
        return form(interval.estimate)
    return f"{form(interval.estimate)} ({form(interval.low)} to {form(interval.high)})"
