"""Explicit one-step methods for a state and the cost that it runs up, with the control held over the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from torch import Tensor

Integrator = Literal["euler", "heun", "rk4"]
Rates: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Maps a state ``(..., n)`` and a time ``(...)`` to the rates of change of the state and of the cost."""


def euler(rates: Rates, state: Tensor, time: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """Return the state after ``dt`` and the cost of the step: explicit Euler, of first order."""
    k1, c1 = rates(state, time)
    return state + dt * k1, dt * c1


def heun(rates: Rates, state: Tensor, time: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """Return the state after ``dt`` and the cost of the step: Heun's trapezoid, of second order."""
    k1, c1 = rates(state, time)
    k2, c2 = rates(state + dt * k1, time + dt)
    return state + dt / 2 * (k1 + k2), dt / 2 * (c1 + c2)


def rk4(rates: Rates, state: Tensor, time: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """Return the state after ``dt`` and the cost of the step: classical Runge-Kutta, of fourth order."""
    k1, c1 = rates(state, time)
    k2, c2 = rates(state + dt / 2 * k1, time + dt / 2)
    k3, c3 = rates(state + dt / 2 * k2, time + dt / 2)
    k4, c4 = rates(state + dt * k3, time + dt)
    return state + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4), dt / 6 * (c1 + 2 * c2 + 2 * c3 + c4)


INTEGRATORS: dict[str, Callable[[Rates, Tensor, Tensor, float], tuple[Tensor, Tensor]]] = {
    "euler": euler,
    "heun": heun,
    "rk4": rk4,
}
