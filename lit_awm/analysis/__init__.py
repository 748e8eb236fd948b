"""Analysis of tasks, policies and gradients."""

from lit_awm.analysis.gradients import Gradients, PolicyCopies, measure_gradients
from lit_awm.analysis.growth import Growth, fit_growth
from lit_awm.analysis.laboratory import GradientReport, Setting, Subject, compare_gradients
from lit_awm.analysis.landscapes import Landscape, draw_landscape, random_direction
from lit_awm.analysis.oracle import Solution, random_cost, solve

__all__ = [
    "GradientReport",
    "Gradients",
    "Growth",
    "Landscape",
    "PolicyCopies",
    "Setting",
    "Solution",
    "Subject",
    "compare_gradients",
    "draw_landscape",
    "fit_growth",
    "measure_gradients",
    "random_cost",
    "random_direction",
    "solve",
]
