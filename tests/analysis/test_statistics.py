from __future__ import annotations

import itertools
import random
from statistics import mean

import numpy as np
import pytest

from lit_awm.analysis.statistics import (
    bootstrap,
    improvement,
    interquartile_mean,
    median,
    performance_profile,
    probability_of_improvement,
)

SCORES = [[0.1, 0.4, 0.2, 0.9], [3.0, 1.0, 2.0, 7.0]]


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end_of_all_scores() -> None:
    assert interquartile_mean(SCORES) == pytest.approx((0.4 + 0.9 + 1.0 + 2.0) / 4, abs=1e-12)
    assert interquartile_mean([[5.0]]) == 5.0


def test_more_runs_of_an_easy_task_do_not_lower_the_interquartile_mean() -> None:
    hard = [7.0, 8.0]
    few, many = ([[1.0, 2.0] * count, hard] for count in (1, 50))
    assert interquartile_mean(few) == (2.0 + 7.0) / 2
    assert interquartile_mean(many) == pytest.approx((2.0 + 7.0) / 2, abs=1e-12)
    assert interquartile_mean([[0.0] * 7, [1.0], [5.0]]) == pytest.approx((1 / 12 * 0 + 1 / 3 * 1 + 1 / 12 * 5) * 2)


def test_the_median_is_that_of_the_means_of_tasks() -> None:
    assert median([[1.0, 3.0], [10.0], [4.0, 8.0]]) == 6.0


def test_the_probability_of_improvement_counts_pairs_of_runs_with_ties_a_half() -> None:
    ours, theirs = [[1.0, 2.0, 5.0], [0.5]], [[2.0, 3.0], [0.1, 0.5, 0.9, 0.5]]
    shares = [
        mean(1.0 if a < b else 0.5 if a == b else 0.0 for a, b in itertools.product(*pair))
        for pair in zip(ours, theirs, strict=True)
    ]
    found = probability_of_improvement(ours, theirs)
    assert found == pytest.approx(mean(shares), abs=1e-12)
    assert probability_of_improvement(theirs, ours) == pytest.approx(1 - found, abs=1e-12)


def test_the_interval_of_an_improvement_is_that_of_every_possible_draw() -> None:
    ours, theirs = [[1.0, 2.5]], [[2.0, 3.0, 1.5]]
    draws = itertools.product(itertools.product(ours[0], repeat=2), itertools.product(theirs[0], repeat=3))
    every = [probability_of_improvement([a], [b]) for a, b in draws]
    found = improvement(ours, theirs, confidence=0.6, resamplings=20_000)
    assert found.estimate == probability_of_improvement(ours, theirs)
    assert found[1:] == pytest.approx(np.percentile(every, [20, 80]), abs=1e-9)


def test_the_profile_is_the_share_of_runs_up_to_each_threshold_averaged_over_tasks() -> None:
    profile = performance_profile([[0.1, 0.3], [0.2, 0.4, 0.6, 0.8]], [0.1, 0.25, 1.0])
    np.testing.assert_allclose(profile, [(0.5 + 0) / 2, (0.5 + 0.25) / 2, 1.0], atol=1e-12)


def test_the_bootstrap_is_that_of_every_possible_draw_of_runs_within_tasks() -> None:
    scores = [[0.0, 1.1, 5.2], [2.3, 3.4]]
    first, second = (list(itertools.product(task, repeat=len(task))) for task in scores)
    every = [mean_of_all([a, b]) for a in first for b in second]
    found = bootstrap(scores, mean_of_all, confidence=0.8, resamplings=20_000)
    assert found.estimate == mean_of_all(scores)
    assert found.low == pytest.approx(np.percentile(every, 10), abs=0.05)
    assert found.high == pytest.approx(np.percentile(every, 90), abs=0.05)


def test_runs_are_drawn_within_their_task_only() -> None:
    assert bootstrap([[1.0] * 3, [9.0] * 3])[1:] == (interquartile_mean([[1.0] * 3, [9.0] * 3]),) * 2


def test_nine_in_ten_intervals_of_ninety_percent_hold_the_truth() -> None:
    chance, hits, trials = random.Random(0), 0, 200
    for seed in range(trials):
        scores = [[chance.gauss(task, 1) for _ in range(20)] for task in (0.0, 0.0)]
        found = bootstrap(scores, mean_of_all, confidence=0.9, resamplings=200, seed=seed)
        hits += found.low <= 0 <= found.high
    assert hits / trials == pytest.approx(0.9, abs=0.06)


def mean_of_all(scores: object) -> float:
    return float(np.mean([value for task in scores for value in task]))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: interquartile_mean([]), "scores must have at least one task"),
        (lambda: bootstrap([[1.0], []]), "each task at least one run"),
        (lambda: bootstrap(SCORES, confidence=1.0), "confidence must be between 0 and 1, got 1.0"),
        (lambda: bootstrap(SCORES, resamplings=0), "resamplings must be at least 1, got 0"),
        (
            lambda: probability_of_improvement(SCORES, SCORES[:1]),
            "theirs must have a row for each of our 2 tasks, got 1",
        ),
    ],
)
def test_tables_that_are_none_are_refused(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=words):
        call()
