"""Harvest of growing fish (Lenhart & Workman, 2007, chapter 11; Getz, 1984)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_awm.checks import check_at_least, check_positive
from lit_awm.envs.ode import OdeEnv


class Harvest(OdeEnv):
    """Fish a shrinking population whose members gain weight with time.

    ``x' = -(m + u) x`` and ``g = -A k t / (t + 1) x u + u^2``, where ``x`` counts the fish and ``u`` is the effort.

    Args:
        A: Worth of the catch against the effort.
        k: Largest weight of a fish.
        m: Natural death rate.
        M: Largest effort, positive.
        x_0: Initial number of fish.
        duration: Length of an episode.
        options: Discretisation, bounds and device, see :class:`~lit_awm.envs.ode.OdeEnv`.
    """

    name = "harvest"
    state_names = ("fish",)
    control_names = ("effort",)

    def __init__(
        self,
        A: float = 5.0,
        k: float = 10.0,
        m: float = 0.2,
        M: float = 1.0,
        x_0: float = 0.4,
        duration: float = 10.0,
        **options: Any,
    ) -> None:
        check_positive(M=M)
        check_at_least(0, A=A, k=k, m=m)
        super().__init__(initial_state=[x_0], control_bounds=[(0, M)], duration=duration, **options)
        self.A, self.k, self.m = A, k, m

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return the loss of fish by death and catch."""
        return -(self.m + control) * state

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return the square of the effort less the worth of the catch."""
        effort = control[..., 0]
        return effort**2 - self.A * (self.k * time / (time + 1)) * state[..., 0] * effort
