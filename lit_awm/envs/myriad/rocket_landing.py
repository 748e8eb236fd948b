"""Landing of a rocket that falls on its side (after T. Godden's article on the landing of Starship)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_awm.checks import check_at_least, check_positive
from lit_awm.envs.ode import OdeEnv


class RocketLanding(OdeEnv):
    """Turn a falling rocket upright and set it down, with little thrust and gimbal.

    With the position ``x, y``, the angle ``th`` (0 is upright), the share ``u_0`` of the largest thrust ``F``, the
    gimbal angle ``u_1`` and the moment of inertia ``m L^2 / 12``::

        x''  = F u_0 sin(u_1 + th) / m
        y''  = F u_0 cos(u_1 + th) / m - g
        th'' = -6 F u_0 sin(u_1) / (m L)
        g    = u_0^2 + u_1^2 + 2 th'^2

    Args:
        g: Gravity (m/s^2).
        m: Mass (kg), positive.
        length: Length ``L`` (m), positive.
        max_thrust: Largest thrust ``F`` (N), positive.
        min_share: Smallest share of the thrust, in [0, 1).
        max_gimbal: Largest gimbal angle (rad), positive; the default is 20 degrees, rounded as published.
        x_0: Initial state.
        x_T: End state.
        duration: Length of an episode (s).
        target_weight: Cost of missing the end state by 10 m, 5 m/s, 0.1 rad or 0.1 rad/s.
        options: Discretisation, bounds and device, see :class:`~lit_awm.envs.ode.OdeEnv`.

    Raises:
        ValueError: If ``min_share`` is outside [0, 1).
    """

    name = "rocket_landing"
    state_names = ("x", "x velocity", "y", "y velocity", "angle", "angular velocity")
    control_names = ("thrust", "gimbal angle")

    def __init__(
        self,
        g: float = 9.8,
        m: float = 100_000.0,
        length: float = 50.0,
        max_thrust: float = 2.21e6,
        min_share: float = 0.4,
        max_gimbal: float = 0.3490658,
        x_0: Sequence[float] = (0.0, 0.0, 1000.0, -80.0, -math.pi / 2, 0.0),
        x_T: Sequence[float] = (0.0,) * 6,
        duration: float = 16.0,
        target_weight: float = 1.0,
        **options: Any,
    ) -> None:
        check_positive(m=m, length=length, max_thrust=max_thrust, max_gimbal=max_gimbal)
        if not 0 <= min_share < 1:
            raise ValueError(f"min_share must be at least 0 and below 1, got {min_share}.")
        speeds = (-250, 150)
        check_at_least(0, g=g)
        super().__init__(
            initial_state=x_0,
            control_bounds=[(min_share, 1), (-max_gimbal, max_gimbal)],
            state_bounds=[speeds, speeds, (0, 1000), speeds, (-2 * math.pi, 2 * math.pi), speeds],
            target_state=x_T,
            target_scale=(10, 5, 10, 5, 0.1, 0.1),
            target_weight=target_weight,
            duration=duration,
            **options,
        )
        self.g, self.thrust, self.turn = g, max_thrust / m, 6 * max_thrust / (m * length)

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return the velocities and accelerations of position and angle."""
        _, x_velocity, _, y_velocity, angle, turning = state.unbind(-1)
        share, gimbal = control.unbind(-1)
        x = self.thrust * share * (gimbal + angle).sin()
        y = self.thrust * share * (gimbal + angle).cos() - self.g
        return torch.stack([x_velocity, x, y_velocity, y, turning, -self.turn * share * gimbal.sin()], dim=-1)

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return the squares of thrust and gimbal angle, and twice that of the turning."""
        return control.square().sum(-1) + 2 * state[..., 5] ** 2
