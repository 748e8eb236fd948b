"""A car too weak for its hill (Moore, 1990, PhD thesis; goal and force of Gymnasium's MountainCarContinuous)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_awm.checks import check_at_least
from lit_awm.envs.ode import OdeEnv


class MountainCar(OdeEnv):
    """Rock a car out of a parabolic valley with little force.

    ``p' = v``, ``v' = power clip(u, -1, 1) - gravity p`` and ``g = 10 u^2``: a linear oscillator, so that the problem
    is a convex quadratic programme.

    Args:
        power: Acceleration at full force.
        gravity: Restoring acceleration per unit of position.
        x_0: Initial position and velocity.
        x_T: Final position and velocity.
        duration: Length of an episode.
        target_weight: Cost of missing the end state by 0.1 in position or 0.01 in velocity.
        options: Discretisation, bounds and device, see :class:`~lit_awm.envs.ode.OdeEnv`.
    """

    name = "mountain_car"
    state_names = ("position", "velocity")
    control_names = ("force",)

    def __init__(
        self,
        power: float = 0.0015,
        gravity: float = 0.0025,
        x_0: Sequence[float] = (-0.1, 0.0),
        x_T: Sequence[float] = (0.45, 0.0),
        duration: float = 300.0,
        target_weight: float = 100.0,
        **options: Any,
    ) -> None:
        check_at_least(0, power=power, gravity=gravity)
        super().__init__(
            initial_state=x_0,
            control_bounds=[(-1, 1)],
            state_bounds=[(-1.2, 0.6), (-0.07, 0.07)],
            target_state=x_T,
            target_scale=(0.1, 0.01),
            target_weight=target_weight,
            duration=duration,
            **options,
        )
        self.power, self.gravity = power, gravity

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return velocity and acceleration."""
        position, velocity = state.unbind(-1)
        acceleration = self.power * control[..., 0].clamp(-1, 1) - self.gravity * position
        return torch.stack([velocity, acceleration], dim=-1)

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return ten times the square of the force."""
        return 10 * control[..., 0] ** 2
