"""Swing-up of a pole on a cart (Kelly, 2017, SIAM Review 59(4), doi:10.1137/16M1062569, section 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_awm.checks import check_at_least, check_positive
from lit_awm.envs.ode import OdeEnv


class CartPole(OdeEnv):
    """Move a cart by a metre and swing its pole up, with little force.

    With the cart at ``q_1``, the pole at the angle ``q_2`` (0 hangs, pi stands) and ``D = m1 + m2 sin^2 q_2``::

        q_1'' = (l m2 sin(q_2) q_2'^2 + u + m2 g cos(q_2) sin(q_2)) / D
        q_2'' = -(l m2 cos(q_2) sin(q_2) q_2'^2 + u cos(q_2) + (m1 + m2) g sin(q_2)) / (l D)
        g     = u^2

    Args:
        g: Gravity (m/s^2).
        m1: Mass of the cart (kg), positive.
        m2: Mass of the pole (kg), positive.
        length: Length ``l`` of the pole (m), positive.
        u_max: Largest force (N), positive.
        d_max: Half the length of the rail (m), positive.
        x_0: Initial state.
        x_T: End state.
        duration: Length of an episode (s).
        target_weight: Cost of missing the end state by 1 m, 1 rad, 2 m/s or 2 rad/s.
        published: Whether to leave out the factor ``sin(q_2)`` of ``q_2'^2`` in ``q_2''``, as Myriad does; energy is
            then not conserved.
        options: Discretisation, bounds and device, see :class:`~lit_awm.envs.ode.OdeEnv`.
    """

    name = "cartpole"
    state_names = ("cart position", "pole angle", "cart velocity", "pole velocity")
    control_names = ("force",)

    def __init__(
        self,
        g: float = 9.81,
        m1: float = 1.0,
        m2: float = 0.3,
        length: float = 0.5,
        u_max: float = 20.0,
        d_max: float = 2.0,
        x_0: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
        x_T: Sequence[float] = (1.0, math.pi, 0.0, 0.0),
        duration: float = 2.0,
        target_weight: float = 1000.0,
        published: bool = False,
        **options: Any,
    ) -> None:
        check_positive(m1=m1, m2=m2, length=length, u_max=u_max, d_max=d_max)
        check_at_least(0, g=g)
        super().__init__(
            initial_state=x_0,
            control_bounds=[(-u_max, u_max)],
            state_bounds=[(-d_max, d_max), (-2 * math.pi, 2 * math.pi), (-5, 5), (-10, 10)],
            target_state=x_T,
            target_scale=(1, 1, 2, 2),
            target_weight=target_weight,
            duration=duration,
            **options,
        )
        self.g, self.m1, self.m2, self.length, self.published = g, m1, m2, length, published

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return the velocities and accelerations of cart and pole."""
        _, angle, cart_velocity, pole_velocity = state.unbind(-1)
        sin, cos, force = angle.sin(), angle.cos(), control[..., 0]
        denominator = self.m1 + self.m2 * sin**2
        pull = self.length * self.m2 * pole_velocity**2
        cart = (pull * sin + force + self.m2 * self.g * cos * sin) / denominator
        torque = pull * cos * (1 if self.published else sin) + force * cos + (self.m1 + self.m2) * self.g * sin
        return torch.stack([cart_velocity, pole_velocity, cart, -torque / (self.length * denominator)], dim=-1)

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return the square of the force."""
        return control[..., 0] ** 2
