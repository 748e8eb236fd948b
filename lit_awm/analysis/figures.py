"""Figures of what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_awm.analysis.laboratory import GradientReport
from lit_awm.analysis.landscapes import Landscape

PANELS = {
    "policy_norm": "norm of the policy gradient",
    "state_norm": "norm of the last state's gradient\nto the first action",
    "signal_to_noise": "signal-to-noise of the policy gradient",
    "cosine": "cosine to the true policy gradient",
    "norm_ratio": "norm over that of the true one",
}


def gradient_figure(report: GradientReport, title: str) -> Figure:
    """Return a figure of everything in a report against the horizon, and of gradients against distance."""
    figure = Figure(figsize=(14, 8), layout="constrained")
    figure.suptitle(title)
    panels: Any = figure.subplots(2, 3)
    colours = {label.removesuffix(" (fresh)"): None for label in report.growth}
    style: dict[str, Any] = {
        label: {"color": f"C{list(colours).index(label.removesuffix(' (fresh)'))}"} for label in report.growth
    }
    for axes, (name, words) in zip(panels.flat, PANELS.items(), strict=False):
        for label in report.growth:
            points = [(row["horizon"], row[name]) for row in report.of(label) if row[name] is not None]
            if points:
                axes.plot(*zip(*points, strict=True), _line(label), label=label, **style[label])
        axes.set(xlabel="horizon H", title=words, xscale="log", yscale="linear" if name == "cosine" else "log")
    last: Axes = panels.flat[-1]
    for label, values in report.by_distance.items():
        norms = [math.nan if value is None else value for value in values]
        last.plot(range(1, len(norms) + 1), norms, _line(label).replace("o", ""), label=label, **style[label])
    last.set(xlabel="steps to the end", title="norm of an action's gradient\n(longest horizon)", yscale="log")
    for axes in panels.flat:
        axes.grid(alpha=0.3)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize="small")
    return figure


def _line(label: str) -> str:
    return "o:" if label.endswith("(fresh)") else "o-"


def landscape_figure(landscapes: Mapping[str, Landscape], title: str) -> Figure:
    """Return a figure with a plane of random directions and the line along the gradient for each world model."""
    figure = Figure(figsize=(3.4 * len(landscapes), 6.4), layout="constrained")
    figure.suptitle(title)
    panels: Any = figure.subplots(2, len(landscapes), squeeze=False)
    for column, (label, landscape) in enumerate(landscapes.items()):
        plane, line = panels[0, column], panels[1, column]
        steps = landscape.steps.numpy()
        contours = plane.contourf(steps, steps, landscape.plane.numpy(), levels=20)
        figure.colorbar(contours, ax=plane, shrink=0.8)
        plane.plot(0, 0, "w+")
        plane.set(title=label, xlabel="random direction 2", ylabel="random direction 1")
        if landscape.line is not None:
            line.plot(steps, landscape.line.numpy())
        line.axvline(0, color="grey", linewidth=0.8)
        line.set(xlabel="along its policy gradient", ylabel="return")
        line.grid(alpha=0.3)
    return figure
