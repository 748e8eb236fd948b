"""Statistics of few runs on many tasks (Agarwal et al., 2021, arXiv:2108.13264).

Scores are costs: lower is better. A table of scores has a row for each task, with the scores of its runs, of which
there may be more for some tasks than for others.

Shape legend: ``R`` resamplings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, trim_mean

Scores = Sequence[Sequence[float]]
Array = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate between two bounds."""

    estimate: float
    low: float
    high: float


def interquartile_mean(scores: Scores) -> float:
    """Return the mean of the middle half of all scores, of all tasks together, each of which counts the same.

    Where tasks have equally many runs, whole scores are left out, a quarter at each end rounded down, as is published;
    where they have not, a score weighs the less the more runs its task has, and a quarter of all weight is left out.

    Example:
        >>> interquartile_mean([[0.0, 1.0, 2.0, 100.0]])
        1.5
        >>> round(interquartile_mean([[0.0], [1.0, 1.0, 1.0]]), 9)
        0.5
    """
    counts = np.array([len(task) for task in _check(scores)])
    values = np.concatenate([np.asarray(task, dtype=float) for task in scores])
    if (counts == counts[0]).all():
        return float(trim_mean(values, 0.25))
    order = values.argsort()
    weights = np.repeat(1 / (counts * len(counts)), counts)[order]
    above = weights.cumsum()
    within = above.clip(0.25, 0.75) - (above - weights).clip(0.25, 0.75)
    return float(values[order] @ within / within.sum())


def median(scores: Scores) -> float:
    """Return the median of the tasks' mean scores."""
    return float(np.median([np.mean(task) for task in _check(scores)]))


def bootstrap(
    scores: Scores,
    statistic: Callable[[Scores], float] = interquartile_mean,
    confidence: float = 0.95,
    resamplings: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return a statistic with its percentile interval under a stratified bootstrap: runs are drawn anew in each task.

    Args:
        scores: A row of scores for each task.
        statistic: Of such a table.
        confidence: Share in (0, 1) of the bootstrap's distribution between the bounds.
        resamplings: Number ``R`` of tables that are drawn.
        seed: Of the draws.

    Raises:
        ValueError: If a task has no runs, or a number is out of its range.
    """
    return _bootstrap([scores], statistic, confidence, resamplings, seed)


def probability_of_improvement(ours: Scores, theirs: Scores) -> float:
    """Return the probability that a run of ours costs less than one of theirs, on a task drawn at random.

    Ties count a half: for each task it is the Mann-Whitney statistic over the number of pairs.

    Args:
        ours: A row of scores for each task.
        theirs: The same tasks, in the same order.

    Raises:
        ValueError: If the tasks are not as many, or one has no runs.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"theirs must have a row for each of our {len(ours)} tasks, got {len(theirs)}.")
    return float(np.mean([_share_of_wins(*pair) for pair in zip(_check(ours), _check(theirs), strict=True)]))


def improvement(
    ours: Scores, theirs: Scores, confidence: float = 0.95, resamplings: int = 2000, seed: int = 0
) -> Interval:
    """Return the probability of improvement with its interval under a stratified bootstrap, as :func:`bootstrap` does.

    Args:
        ours: A row of scores for each task.
        theirs: The same tasks, in the same order.
        confidence: Share in (0, 1) of the bootstrap's distribution between the bounds.
        resamplings: Number ``R`` of pairs of tables that are drawn.
        seed: Of the draws.

    Raises:
        ValueError: If the tasks are not as many, one has no runs, or a number is out of its range.
    """
    return _bootstrap([ours, theirs], probability_of_improvement, confidence, resamplings, seed)


def performance_profile(scores: Scores, thresholds: Sequence[float]) -> Array:
    """Return the share of runs whose score is at most each of the thresholds, averaged over tasks."""
    found = [np.asarray(task, dtype=float)[:, None] <= np.asarray(thresholds) for task in _check(scores)]
    return np.mean([task.mean(axis=0) for task in found], axis=0)


def _bootstrap(
    tables: Sequence[Scores], statistic: Callable[..., float], confidence: float, resamplings: int, seed: int
) -> Interval:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}.")
    if resamplings < 1:
        raise ValueError(f"resamplings must be at least 1, got {resamplings}.")
    chance = np.random.default_rng(seed)
    rows = [[np.asarray(task, dtype=float) for task in _check(scores)] for scores in tables]
    drawn = [
        statistic(*([chance.choice(task, len(task)).tolist() for task in table] for table in rows))
        for _ in range(resamplings)
    ]
    tail = 50 * (1 - confidence)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Interval(statistic(*tables), float(low), float(high))


def _share_of_wins(ours: Sequence[float], theirs: Sequence[float]) -> float:
    ranks = rankdata([*ours, *theirs])[: len(ours)]
    losses = float(ranks.sum()) - len(ours) * (len(ours) + 1) / 2
    return 1 - losses / (len(ours) * len(theirs))


def _check(scores: Scores) -> Scores:
    if not len(scores) or not all(len(task) for task in scores):
        raise ValueError("scores must have at least one task, and each task at least one run.")
    return scores
