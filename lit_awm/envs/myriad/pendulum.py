"""Swing-up of a weak pendulum (the equations of Gymnasium's Pendulum, slowed down as in Myriad)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_awm.checks import check_at_least, check_positive
from lit_awm.envs.ode import OdeEnv


class Pendulum(OdeEnv):
    """Swing a pendulum up, and keep it up, with a torque that cannot lift it at once.

    With the angle ``th`` (0 hangs, pi stands), ``wrap`` to [-pi, pi) and ``e = wrap(th - pi)``, the distance from
    upright::

        th'  = clip(th', -8, 8)
        th'' = scale (-3 g / (2 l) sin(th) + 3 clip(u, -2, 2) / (m l^2))
        g    = e^2 + 0.1 th'^2 + 0.001 u^2

    Args:
        g: Gravity (m/s^2).
        m: Mass (kg), positive.
        length: Length ``l`` (m), positive.
        max_speed: Largest speed of the angle (rad/s), positive.
        max_torque: Largest torque (N m), positive.
        ctrl_penalty: Weight of the torque in the cost.
        acceleration_scale: Factor of the acceleration, positive: Myriad's 0.05 slows the pendulum down to its 15 s, 1
            gives Gymnasium's.
        x_0: Initial angle and speed.
        x_T: Final angle and speed; the angle is not wrapped.
        duration: Length of an episode (s).
        target_weight: Cost of missing the end state by 1 rad or 1 rad/s.
        published: Whether ``e = wrap(th)``, as in Myriad, which charges for being upright.
        options: Discretisation, bounds and device, see :class:`~lit_awm.envs.ode.OdeEnv`.
    """

    name = "pendulum"
    state_names = ("angle", "angular velocity")
    control_names = ("torque",)

    def __init__(
        self,
        g: float = 10.0,
        m: float = 1.0,
        length: float = 1.0,
        max_speed: float = 8.0,
        max_torque: float = 2.0,
        ctrl_penalty: float = 0.001,
        acceleration_scale: float = 0.05,
        x_0: Sequence[float] = (0.0, 0.0),
        x_T: Sequence[float] = (math.pi, 0.0),
        duration: float = 15.0,
        target_weight: float = 100.0,
        published: bool = False,
        **options: Any,
    ) -> None:
        check_positive(m=m, length=length, max_speed=max_speed, max_torque=max_torque)
        check_positive(acceleration_scale=acceleration_scale)
        check_at_least(0, g=g, ctrl_penalty=ctrl_penalty)
        super().__init__(
            initial_state=x_0,
            control_bounds=[(-max_torque, max_torque)],
            state_bounds=[(-math.pi, math.pi), (-max_speed, max_speed)],
            target_state=x_T,
            target_weight=target_weight,
            duration=duration,
            **options,
        )
        self.gravity = acceleration_scale * 3 * g / (2 * length)
        self.gain = acceleration_scale * 3 / (m * length**2)
        self.max_speed, self.max_torque, self.ctrl_penalty = max_speed, max_torque, ctrl_penalty
        self.best_angle = 0.0 if published else math.pi

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return speed and acceleration of the angle."""
        angle, speed = state.unbind(-1)
        torque = control[..., 0].clamp(-self.max_torque, self.max_torque)
        acceleration = self.gain * torque - self.gravity * angle.sin()
        return torch.stack([speed.clamp(-self.max_speed, self.max_speed), acceleration], dim=-1)

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return the weighted sum of the squares of distance from the best angle, speed and torque."""
        error = torch.remainder(state[..., 0] - self.best_angle + math.pi, 2 * math.pi) - math.pi
        return error**2 + 0.1 * state[..., 1] ** 2 + self.ctrl_penalty * control[..., 0] ** 2
