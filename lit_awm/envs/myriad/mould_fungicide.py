"""Fungicide against mould (Lenhart & Workman, 2007, chapter 6)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_awm.checks import check_at_least
from lit_awm.envs.ode import OdeEnv


class MouldFungicide(OdeEnv):
    """Hold mould down with as little fungicide as possible.

    ``x' = r (M - x) - u x`` and ``g = A x^2 + u^2``, where ``x`` is the amount of mould and ``u`` of fungicide.

    Args:
        r: Growth rate of the mould.
        M: Carrying capacity.
        A: Weight of the mould against the fungicide.
        x_0: Initial amount of mould.
        duration: Length of an episode.
        options: Batch size, discretisation and device, see :class:`~lit_awm.envs.ode.OdeEnv`.
    """

    name = "mould_fungicide"
    state_names = ("mould",)
    control_names = ("fungicide",)

    def __init__(
        self,
        r: float = 0.3,
        M: float = 10.0,
        A: float = 10.0,
        x_0: float = 1.0,
        duration: float = 5.0,
        **options: Any,
    ) -> None:
        check_at_least(0, r=r, M=M, A=A)
        super().__init__(
            initial_state=[x_0], control_bounds=[(0, 5)], state_bounds=[(0, 5)], duration=duration, **options
        )
        self.r, self.M, self.A = r, M, A

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return the growth of the mould less what the fungicide kills."""
        return self.r * (self.M - state) - control * state

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return the weighted sum of mould and fungicide."""
        return self.A * state[..., 0] ** 2 + control[..., 0] ** 2
