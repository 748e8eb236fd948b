"""A chaotic double pendulum: one choice at the beginning, one reward at the end (Ma et al., 2024, arXiv:2402.05290)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_awm.checks import check_positive
from lit_awm.envs.ode import OdeEnv


class DoublePendulum(OdeEnv):
    """Choose the angles from which a double pendulum is released so that it ends in a given state.

    The first action sets both angles, at rest; the pendulum then swings by itself and later actions do nothing. The
    goal is where a release from ``goal_angles`` leads, so that the least cost is 0. With angles from hanging, the
    difference ``D = th_1 - th_2``, point masses and massless rods::

        th_1'' = (-g (2 m1 + m2) sin th_1 - m2 g sin(th_1 - 2 th_2)
                  - 2 m2 sin D (l2 th_2'^2 + l1 th_1'^2 cos D)) / (l1 (2 m1 + m2 - m2 cos 2D))
        th_2'' = 2 sin D ((m1 + m2) (l1 th_1'^2 + g cos th_1) + l2 m2 th_2'^2 cos D) / (l2 (2 m1 + m2 - m2 cos 2D))
        h      = sum_i 2 (1 - cos(th_i - goal_i)) + l1 / g (th_i' - goal_i')^2

    The Jacobian of the end with respect to the beginning grows exponentially with the length of the episode: give
    ``dt=0.01`` and a longer ``episode_length``, and ``dtype=torch.float64``, since rounding grows as fast: in single
    precision not even the goal angles lead to the goal after a thousand steps.

    Args:
        m1: Upper mass (kg), positive.
        m2: Lower mass (kg), positive.
        l1: Upper length (m), positive.
        l2: Lower length (m), positive.
        g: Gravity (m/s^2), positive.
        goal_angles: The two angles (rad), in [-pi, pi], that are to be found.
        duration: Length of an episode (s).
        substeps: Number of integrator steps in a control interval; the default conserves energy to 1e-6 with ``rk4``
            and a ``dt`` of 0.01 s, wherever the pendulum is released.
        options: Discretisation and device, see :class:`~lit_awm.envs.ode.OdeEnv`.

    Raises:
        ValueError: If ``goal_angles`` are not two angles in [-pi, pi].
    """

    name = "double_pendulum"
    state_names = ("upper angle", "lower angle", "upper velocity", "lower velocity")
    control_names = ("upper angle of release", "lower angle of release")

    def __init__(
        self,
        m1: float = 1.0,
        m2: float = 1.0,
        l1: float = 1.0,
        l2: float = 1.0,
        g: float = 9.81,
        goal_angles: Sequence[float] = (2.0, 2.5),
        duration: float = 1.0,
        substeps: int = 8,
        **options: Any,
    ) -> None:
        check_positive(m1=m1, m2=m2, l1=l1, l2=l2, g=g)
        if len(goal_angles) != 2 or not all(abs(angle) <= math.pi for angle in goal_angles):
            raise ValueError(f"goal_angles must be two angles in [-pi, pi], got {tuple(goal_angles)}.")
        super().__init__(
            initial_state=[0.0] * 4,
            control_bounds=[(-math.pi, math.pi)] * 2,
            duration=duration,
            substeps=substeps,
            **options,
        )
        self.m1, self.m2, self.l1, self.l2, self.g, self.goal_angles = m1, m2, l1, l2, g, goal_angles
        self._add_constant("goal", [0.0] * 4)
        with torch.no_grad():
            self.goal = self.unroll(self.solution().to(self.device))[0][-1]

    def solution(self) -> Tensor:
        """Return the controls that release the pendulum from ``goal_angles``."""
        return torch.tensor([list(self.goal_angles)], dtype=torch.float64).expand(self.episode_length, -1)

    def interval(self, state: Tensor, control: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Integrate one interval, the first one from the release."""
        released = torch.cat([control, torch.zeros_like(control)], dim=-1)
        is_first = (time < self.dt / 2).unsqueeze(-1)
        return super().interval(torch.where(is_first, released, state), control, time)

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return the velocities and accelerations of the two angles."""
        upper, lower, upper_velocity, lower_velocity = state.unbind(-1)
        m1, m2, l1, l2, g = self.m1, self.m2, self.l1, self.l2, self.g
        difference = upper - lower
        sin, cos = difference.sin(), difference.cos()
        masses = 2 * m1 + m2 - m2 * (2 * difference).cos()
        swing = l2 * lower_velocity**2 + l1 * upper_velocity**2 * cos
        weight = g * (2 * m1 + m2) * upper.sin() + m2 * g * (upper - 2 * lower).sin()
        pull = (m1 + m2) * (l1 * upper_velocity**2 + g * upper.cos()) + l2 * m2 * lower_velocity**2 * cos
        upper_rate = -(weight + 2 * m2 * sin * swing) / (l1 * masses)
        return torch.stack([upper_velocity, lower_velocity, upper_rate, 2 * sin * pull / (l2 * masses)], dim=-1)

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return zero: only the end counts."""
        return torch.zeros_like(state[..., 0])

    def terminal_cost(self, state: Tensor) -> Tensor:
        """Return the squared distance of the final state from the goal, with velocities in units of sqrt(g / l1)."""
        error = state - self.goal.to(state)
        return (2 * (1 - error[..., :2].cos())).sum(-1) + self.l1 / self.g * error[..., 2:].square().sum(-1)

    def energy(self, state: Tensor) -> Tensor:
        """Return the mechanical energy (J) of a state ``(..., 4)``, shape ``(...)``; it is conserved."""
        upper, lower, upper_velocity, lower_velocity = state.unbind(-1)
        m1, m2, l1, l2, g = self.m1, self.m2, self.l1, self.l2, self.g
        cross = 2 * l1 * l2 * upper_velocity * lower_velocity * (upper - lower).cos()
        kinetic = (m1 + m2) * (l1 * upper_velocity) ** 2 + m2 * ((l2 * lower_velocity) ** 2 + cross)
        return kinetic / 2 - (m1 + m2) * g * l1 * upper.cos() - m2 * g * l2 * lower.cos()
