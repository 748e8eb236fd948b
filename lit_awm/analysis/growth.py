"""How fast something grows: exponentially, or like a power."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Growth(NamedTuple):
    """Least-squares fits of ``c * rate ** x`` and of ``c * x ** power`` to the logarithms of positive values.

    Attributes:
        rate: Factor per unit of ``x`` of the exponential fit.
        exponential_error: Root mean square error of its logarithm.
        power: Exponent of the polynomial fit.
        polynomial_error: Root mean square error of its logarithm.
    """

    rate: float
    exponential_error: float
    power: float
    polynomial_error: float

    @property
    def winner(self) -> str:
        """``"exponential"`` or ``"polynomial"``, whichever has the smaller error; both have two parameters."""
        return "exponential" if self.exponential_error < self.polynomial_error else "polynomial"


def fit_growth(x: Sequence[float], values: Sequence[float]) -> Growth | None:
    """Fit both kinds of growth; None if fewer than three values are positive and finite.

    Example:
        >>> growth = fit_growth([1, 2, 4, 8], [1, 8, 64, 512])
        >>> growth.winner, round(growth.power, 6)
        ('polynomial', 3.0)
    """
    points = [(a, b) for a, b in zip(x, values, strict=True) if a > 0 and b > 0 and math.isfinite(b)]
    if len(points) < 3:
        return None
    at, logs = np.array([a for a, _ in points], dtype=float), np.log([b for _, b in points])
    rate, exponential_error = _line(at, logs)
    power, polynomial_error = _line(np.log(at), logs)
    return Growth(math.exp(rate), exponential_error, power, polynomial_error)


def _line(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the slope of the line through the points, and its root mean square error."""
    slope, constant = np.polyfit(x, y, 1)
    return float(slope), float(np.sqrt(np.mean((y - slope * x - constant) ** 2)))
