"""Harvest of bears in a park and a forest (Lenhart & Workman, 2007, chapter 15; Salinas, Lenhart & Gross, 2005)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_awm.checks import check_at_least, check_positive
from lit_awm.envs.ode import OdeEnv


class BearPopulations(OdeEnv):
    """Keep bears from moving to the city by hunting them in the forest, where it is cheap, not in the park.

    With the densities ``P`` (park), ``F`` (forest) and ``O`` (outside, that is, in the city)::

        P' = r P - r/K P^2 + m_f r/K (1 - P/K) F^2 - u_p P
        F' = r F - r/K F^2 + m_p r/K (1 - F/K) P^2 - u_f F
        O' = r/K ((1 - m_p) P^2 + (1 - m_f) F^2) + r/K^2 (m_f P F^2 + m_p P^2 F)
        g  = O + c_p u_p^2 + c_f u_f^2

    Args:
        r: Growth rate (1/year).
        K: Carrying capacity of a region, positive.
        m_p: Share of the park's surplus that moves to the forest.
        m_f: Share of the forest's surplus that moves to the park.
        c_p: Cost of hunting in the park.
        c_f: Cost of hunting in the forest.
        x_0: Initial densities ``P, F, O``.
        duration: Length of an episode (years).
        options: Batch size, discretisation and device, see :class:`~lit_awm.envs.ode.OdeEnv`.
    """

    name = "bear_populations"
    state_names = ("park density", "forest density", "outside density")
    control_names = ("park harvest", "forest harvest")

    def __init__(
        self,
        r: float = 0.1,
        K: float = 0.75,
        m_p: float = 0.5,
        m_f: float = 0.5,
        c_p: float = 10_000.0,
        c_f: float = 10.0,
        x_0: Sequence[float] = (0.4, 0.2, 0.0),
        duration: float = 25.0,
        **options: Any,
    ) -> None:
        check_positive(K=K)
        check_at_least(0, r=r, m_p=m_p, m_f=m_f, c_p=c_p, c_f=c_f)
        if max(m_p, m_f) > 1:
            raise ValueError(f"m_p and m_f are shares and must be at most 1, got {m_p} and {m_f}.")
        super().__init__(
            initial_state=x_0, control_bounds=[(0, 0.2)] * 2, state_bounds=[(0, 2)] * 3, duration=duration, **options
        )
        self.r, self.K, self.m_p, self.m_f, self.c_p, self.c_f = r, K, m_p, m_f, c_p, c_f

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return the rates of change of the three densities."""
        (park, forest, _), (hunt_park, hunt_forest) = state.unbind(-1), control.unbind(-1)
        r, K, m_p, m_f, k = self.r, self.K, self.m_p, self.m_f, self.r / self.K
        park_rate = r * park - k * park**2 + m_f * k * (1 - park / K) * forest**2 - hunt_park * park
        forest_rate = r * forest - k * forest**2 + m_p * k * (1 - forest / K) * park**2 - hunt_forest * forest
        outside_rate = k * ((1 - m_p) * park**2 + (1 - m_f) * forest**2) + k / K * (
            m_f * park * forest**2 + m_p * park**2 * forest
        )
        return torch.stack([park_rate, forest_rate, outside_rate], dim=-1)

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return the bears outside plus the cost of hunting."""
        return state[..., 2] + self.c_p * control[..., 0] ** 2 + self.c_f * control[..., 1] ** 2
