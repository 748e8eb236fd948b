"""Vaccination in an epidemic (Lenhart & Workman, 2007, chapter 13; Joshi, Lenhart, Li & Wang, 2006)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from lit_awm.checks import check_at_least, check_positive
from lit_awm.envs.ode import OdeEnv


class EpidemicSeirn(OdeEnv):
    """Vaccinate against an epidemic, weighing the infected against the cost of vaccination.

    With susceptible ``S``, exposed ``E``, infected ``I`` and all people ``N``::

        S' = b N - d S - c S I - u S        E' = c S I - (e + d) E
        I' = e E - (g + a + d) I            N' = (b - d) N - a I
        g  = A I + u^2

    Args:
        A: Weight of the infected.
        b: Birth rate (1/year).
        d: Death rate (1/year).
        c: Rate of infection.
        e: Rate at which the exposed become infected (1/year).
        g: Rate of recovery (1/year).
        a: Death rate by the disease (1/year).
        x_0: Initial ``S, E, I`` and recovered ``R``; ``N`` is their sum.
        duration: Length of an episode (years).
        u_max: Largest rate of vaccination (1/year), positive.
        options: Discretisation, bounds and device, see :class:`~lit_awm.envs.ode.OdeEnv`.
    """

    name = "epidemic_seirn"
    state_names = ("susceptible", "exposed", "infected", "people")
    control_names = ("vaccination rate",)
    published_bounds: ClassVar[list[tuple[float, float]] | None] = None

    def __init__(
        self,
        A: float = 0.1,
        b: float = 0.525,
        d: float = 0.5,
        c: float = 1e-4,
        e: float = 0.5,
        g: float = 0.1,
        a: float = 0.2,
        x_0: Sequence[float] = (1000.0, 100.0, 50.0, 15.0),
        duration: float = 20.0,
        u_max: float = 0.9,
        **options: Any,
    ) -> None:
        check_positive(u_max=u_max)
        if len(x_0) != 4:
            raise ValueError(f"x_0 must give susceptible, exposed, infected and recovered, got {tuple(x_0)}.")
        check_at_least(0, A=A, b=b, d=d, c=c, e=e, g=g, a=a)
        super().__init__(
            initial_state=[*x_0[:3], sum(x_0)],
            control_bounds=[(0, u_max)],
            state_bounds=self.published_bounds,
            duration=duration,
            **options,
        )
        self.A, self.b, self.d, self.c, self.e, self.g, self.a = A, b, d, c, e, g, a

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return the rates of change of the four groups."""
        susceptible, exposed, infected, people = state.unbind(-1)
        infection = self.c * susceptible * infected
        rates = [
            self.b * people - (self.d + control[..., 0]) * susceptible - infection,
            infection - (self.e + self.d) * exposed,
            self.e * exposed - (self.g + self.a + self.d) * infected,
            (self.b - self.d) * people - self.a * infected,
        ]
        return torch.stack(rates, dim=-1)

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return the weighted sum of the infected and the square of the vaccination rate."""
        return self.A * state[..., 2] + control[..., 0] ** 2
