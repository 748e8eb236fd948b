"""The figures of a report, as SVG that takes its ink from the page around it."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_awm.analysis.comparison import by_length, learning_curve, methods_of, of, profiles, tasks_of
from lit_awm.analysis.runs import Run

INK = "#010203"  # stands for the colour of the page's text
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lit-awm",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "legend.frameon": False,
}
SMALLEST = 1e-5  # of a regret that is drawn on a logarithmic axis
COLUMNS = 3


def draw(figure: Callable[[], Figure]) -> tuple[Figure, str]:
    """Return a figure and its SVG, transparent, with text that the page's own font and colour are used for."""
    with rc_context(STYLE):
        made = figure()
        file = io.StringIO()
        made.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    return made, svg[svg.index("<svg") :].replace(INK, "currentColor")


def colours(runs: Sequence[Run]) -> dict[str, str]:
    """Return a colour for each method, the same in all figures."""
    return {method: f"C{i % 10}" for i, method in enumerate(methods_of(runs))}


def learning_curves(runs: Sequence[Run], score: str, tasks: Sequence[str]) -> Figure:
    """Draw the median over seeds with the range, against environment steps, a panel for each of some tasks."""
    figure, panels = _panels(len(tasks))
    for axes, task in zip(panels, tasks, strict=True):
        for method, colour in colours(runs).items():
            curve = learning_curve(of(runs, method, task), score)
            if not curve:
                continue
            floor = SMALLEST if score == "regret" else -math.inf
            steps = [step for step, _ in curve]
            middle, low, high = ([max(each[i], floor) for _, each in curve] for i in range(3))
            axes.plot(steps, middle, ".-", color=colour, label=method)
            axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.set(xlabel="environment steps", ylabel=score)
        axes.set_title(task, fontsize="medium")  # or the longest does not fit
        if score == "regret":
            axes.set_yscale("log")
    _legend(figure, panels)
    return figure


def performance_profiles(runs: Sequence[Run]) -> Figure:
    """Draw the share of runs with at most a regret, against the regret."""
    thresholds = [10 ** (-5 + 0.05 * i) for i in range(121)]
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    for method, shares in profiles(runs, thresholds).items():
        axes.step(thresholds, shares, where="post", color=colours(runs)[method], label=method)
    axes.set(xscale="log", xlabel="regret", ylabel="share of runs with at most that", ylim=(0, 1.02))
    _grid(axes)
    axes.legend()
    return figure


def length_figure(runs: Sequence[Run]) -> Figure:
    """Draw the interquartile mean of the regret with its interval, against the length of episodes."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    rows = by_length(runs)
    for method, colour in colours(runs).items():
        mine = [row for row in rows if row["method"] == method]
        values = [[max(each, SMALLEST) for each in row["iqm"]] for row in mine]
        if mine:
            errors = [[v[0] - v[1] for v in values], [v[2] - v[0] for v in values]]
            clipped = [[max(0.0, each) for each in side] for side in errors]
            lengths = [row["episode_length"] for row in mine]
            axes.errorbar(lengths, [v[0] for v in values], clipped, fmt="o-", capsize=3, color=colour, label=method)
    axes.set(xscale="log", yscale="log", xlabel="steps of an episode", ylabel="regret, interquartile mean")
    _grid(axes)
    axes.legend()
    return figure


def gradient_norms(runs: Sequence[Run]) -> Figure:
    """Draw the norm of the policy's gradient, each that was logged, a panel for each task."""
    tasks = [task for task in tasks_of(runs) if any(run.gradient_norms for run in of(runs, task=task))]
    figure, panels = _panels(len(tasks))
    for axes, task in zip(panels, tasks, strict=True):
        for method, colour in colours(runs).items():
            points = [point for run in of(runs, method, task) for point in run.gradient_norms if point[1] > 0]
            if points:
                axes.plot(*zip(*points, strict=True), ".", color=colour, alpha=0.5, markersize=4, label=method)
        axes.set(xlabel="environment steps", ylabel="gradient norm", yscale="log")
        axes.set_title(task, fontsize="medium")
    _legend(figure, panels)
    return figure


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    columns = min(COLUMNS, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(max(3.3 * columns, 5), 2.6 * rows + 0.6), layout="constrained")
    grid: Any = figure.subplots(rows, columns, squeeze=False)
    panels = list(grid.flat)
    for axes in panels[count:]:
        axes.set_visible(False)
    for axes in panels[:count]:
        _grid(axes)
    return figure, panels[:count]


def _grid(axes: Axes) -> None:
    axes.grid(alpha=0.25, color=INK, linewidth=0.5)


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    named = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if len(named) > 1:
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=min(4, len(named)))
