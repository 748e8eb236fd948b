"""Chemotherapy of an HIV infection (Lenhart & Workman, 2007, chapter 14; Butler, Kirschner & Lenhart, 1997)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_awm.checks import check_at_least, check_positive
from lit_awm.envs.ode import OdeEnv


class HivTreatment(OdeEnv):
    """Keep up the number of healthy T cells with as little therapy as possible.

    ``u = 0`` is full therapy and ``u = 1`` none. With ``x_0`` healthy cells, ``x_1`` infected cells and ``x_2`` free
    virus particles (per mm^3)::

        x_0' = s / (1 + x_2) - m_1 x_0 + r x_0 (1 - (x_0 + x_1) / T_max) - u k x_0 x_2
        x_1' = u k x_0 x_2 - m_2 x_1
        x_2' = N m_2 x_1 - m_3 x_2
        g    = -A x_0 + (1 - u)^2

    Args:
        s: Supply of healthy cells (1/(mm^3 day)).
        m_1: Death rate of healthy cells (1/day).
        m_2: Death rate of infected cells (1/day).
        m_3: Death rate of the virus (1/day).
        r: Growth rate of healthy cells (1/day).
        T_max: Largest number of cells (1/mm^3), positive.
        k: Infection rate (mm^3/day).
        N: Virus particles from one infected cell.
        x_0: Initial state.
        A: Worth of a healthy cell.
        duration: Length of the treatment (days).
        options: Batch size, discretisation and device, see :class:`~lit_awm.envs.ode.OdeEnv`.
    """

    name = "hiv_treatment"
    state_names = ("healthy cells", "infected cells", "virus")
    control_names = ("share of therapy left out",)

    def __init__(
        self,
        s: float = 10.0,
        m_1: float = 0.02,
        m_2: float = 0.5,
        m_3: float = 4.4,
        r: float = 0.03,
        T_max: float = 1500.0,
        k: float = 2.4e-5,
        N: float = 300.0,
        x_0: Sequence[float] = (800.0, 0.04, 1.5),
        A: float = 0.05,
        duration: float = 20.0,
        **options: Any,
    ) -> None:
        check_positive(T_max=T_max)
        check_at_least(0, s=s, m_1=m_1, m_2=m_2, m_3=m_3, r=r, k=k, N=N, A=A)
        super().__init__(
            initial_state=x_0,
            control_bounds=[(0, 1)],
            state_bounds=[(0, 1600), (0, 100), (0, 100)],
            domain=[(-math.inf, math.inf), (-math.inf, math.inf), (-1, math.inf)],
            duration=duration,
            **options,
        )
        self.s, self.m_1, self.m_2, self.m_3, self.r = s, m_1, m_2, m_3, r
        self.T_max, self.k, self.N, self.A = T_max, k, N, A

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return the rates of change of healthy cells, infected cells and virus."""
        healthy, infected, virus = state.unbind(-1)
        infection = control[..., 0] * self.k * healthy * virus
        growth = self.r * healthy * (1 - (healthy + infected) / self.T_max)
        healthy_rate = self.s / (1 + virus) - self.m_1 * healthy + growth - infection
        infected_rate = infection - self.m_2 * infected
        virus_rate = self.N * self.m_2 * infected - self.m_3 * virus
        return torch.stack([healthy_rate, infected_rate, virus_rate], dim=-1)

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return the burden of the therapy less the worth of the healthy cells."""
        return (1 - control[..., 0]) ** 2 - self.A * state[..., 0]
