"""Analysis of tasks, policies and gradients."""

from lit_awm.analysis.oracle import Solution, random_cost, solve

__all__ = ["Solution", "random_cost", "solve"]
