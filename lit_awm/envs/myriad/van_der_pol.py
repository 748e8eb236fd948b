"""The Van der Pol oscillator (user guide of CasADi 1.8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_awm.envs.ode import OdeEnv


class VanDerPol(OdeEnv):
    """Bring a Van der Pol oscillator to rest.

    ``x_0' = a (1 - x_1^2) x_0 - x_1 + u``, ``x_1' = x_0`` and ``g = x_0^2 + x_1^2 + u^2``.

    Args:
        a: Strength of the nonlinear damping.
        x_0: Initial state.
        x_T: End state.
        duration: Length of an episode.
        target_weight: Cost of missing the end state by 1.
        options: Discretisation, bounds and device, see :class:`~lit_awm.envs.ode.OdeEnv`.
    """

    name = "van_der_pol"
    state_names = ("x_0", "x_1")
    control_names = ("force",)

    def __init__(
        self,
        a: float = 1.0,
        x_0: Sequence[float] = (0.0, 1.0),
        x_T: Sequence[float] = (0.0, 0.0),
        duration: float = 10.0,
        target_weight: float = 10.0,
        **options: Any,
    ) -> None:
        super().__init__(
            initial_state=x_0,
            control_bounds=[(-0.75, 1)],
            state_bounds=[(-4, 4)] * 2,
            target_state=x_T,
            target_weight=target_weight,
            duration=duration,
            **options,
        )
        self.a = a

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return the rates of change of the two states."""
        x_0, x_1 = state.unbind(-1)
        return torch.stack([self.a * (1 - x_1**2) * x_0 - x_1 + control[..., 0], x_0], dim=-1)

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return the squares of states and force."""
        return state.square().sum(-1) + control[..., 0] ** 2
