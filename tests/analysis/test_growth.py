from __future__ import annotations

import pytest

from lit_awm.analysis import fit_growth

HORIZONS = [5, 10, 20, 50, 100, 200]


def test_exponential_growth_is_told_from_a_power() -> None:
    exponential = fit_growth(HORIZONS, [3 * 1.1**h for h in HORIZONS])
    polynomial = fit_growth(HORIZONS, [0.2 * h**2.5 for h in HORIZONS])
    assert exponential is not None
    assert polynomial is not None
    assert (exponential.winner, polynomial.winner) == ("exponential", "polynomial")
    assert exponential.rate == pytest.approx(1.1, rel=1e-9)
    assert polynomial.power == pytest.approx(2.5, rel=1e-9)
    assert exponential.exponential_error < 1e-9 < exponential.polynomial_error


def test_what_is_zero_or_infinite_is_left_out_and_two_points_are_too_few() -> None:
    assert fit_growth([1, 2, 3], [1.0, 0.0, float("inf")]) is None
    growth = fit_growth([1, 2, 4, 8, 16], [0.0, 2.0, 4.0, 8.0, float("nan")])
    assert growth is not None
    assert growth.power == pytest.approx(1.0)
