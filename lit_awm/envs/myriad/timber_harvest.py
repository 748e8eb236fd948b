"""Harvest and investment of a timber farm (Lenhart & Workman, 2007, chapter 18; Kamien & Schwartz, 1991)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_awm.checks import check_at_least
from lit_awm.envs.ode import OdeEnv


class TimberHarvest(OdeEnv):
    """Invest the yield of a timber farm in its growth, until it is time to reap.

    ``x' = k x u`` and ``g = -exp(-r t) x (1 - u)``, where ``x`` is the rate of production and ``u`` the share of it
    that is invested. For ``r = 0`` and ``k = 1`` all is invested until ``T - 1`` and nothing later: ``J* = -100 e^4``.

    Args:
        r: Discount rate.
        k: Return on investment.
        x_0: Initial rate of production.
        duration: Length of an episode.
        options: Discretisation, bounds and device, see :class:`~lit_awm.envs.ode.OdeEnv`.
    """

    name = "timber_harvest"
    state_names = ("production rate",)
    control_names = ("share invested",)

    def __init__(
        self, r: float = 0.0, k: float = 1.0, x_0: float = 100.0, duration: float = 5.0, **options: Any
    ) -> None:
        check_at_least(0, r=r, k=k)
        super().__init__(
            initial_state=[x_0],
            control_bounds=[(0, 1)],
            state_bounds=[(0, 20_000)],
            domain=[(-1e30, 1e30)],  # it grows, but never escapes
            duration=duration,
            **options,
        )
        self.r, self.k = r, k

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return the growth of the production."""
        return self.k * state * control

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return minus the discounted yield."""
        discount = (-self.r * time).exp() if self.r else 1
        return -discount * state[..., 0] * (1 - control[..., 0])
