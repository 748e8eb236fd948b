"""Bacteria that clean up a contaminant (Lenhart & Workman, 2007, chapter 19; Heinricher, Lenhart & Solomon, 1995)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_awm.checks import check_at_least, check_positive
from lit_awm.envs.ode import OdeEnv


class Bioreactor(OdeEnv):
    """Feed bacteria so that they degrade a contaminant.

    ``x' = G u x - D x^2`` and ``g = -K x + u``, where ``x`` is the concentration of the bacteria and ``u`` the feed.
    At the default parameters feeding does not pay: ``u = 0`` is optimal, with cost ``-2 ln 2``.

    Args:
        K: Worth of the degradation by a unit of bacteria.
        G: Growth rate per unit of feed.
        D: Death rate.
        M: Largest feed, positive.
        x_0: Initial concentration.
        duration: Length of an episode.
        options: Batch size, discretisation and device, see :class:`~lit_awm.envs.ode.OdeEnv`.
    """

    name = "bioreactor"
    state_names = ("bacteria concentration",)
    control_names = ("feed",)

    def __init__(
        self,
        K: float = 2.0,
        G: float = 1.0,
        D: float = 1.0,
        M: float = 1.0,
        x_0: float = 0.5,
        duration: float = 2.0,
        **options: Any,
    ) -> None:
        check_positive(M=M)
        check_at_least(0, G=G, D=D)
        super().__init__(
            initial_state=[x_0], control_bounds=[(0, M)], state_bounds=[(0, 1)], duration=duration, **options
        )
        self.K, self.G, self.D = K, G, D

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return the growth of the bacteria less their death."""
        return self.G * control * state - self.D * state**2

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return the price of the feed less the worth of the degradation."""
        return control[..., 0] - self.K * state[..., 0]
