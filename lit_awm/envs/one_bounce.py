"""A ball that must bounce off a wall once: gradients at contact (after Ma et al., 2024, arXiv:2402.05290)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_awm.checks import check_positive
from lit_awm.envs.control import ControlEnv


class OneBounce(ControlEnv):
    """Choose the speed of a ball so that it rests behind its start after bouncing off a wall.

    The first action sets the speed ``v >= 0`` towards the wall at distance ``d``; the ball then moves by itself, losing
    a share of its speed at the wall, and later actions do nothing. After the time ``T`` it is at::

        x(T) = v T                  if v T <= d
             = d - e (v T - d)      otherwise

    and only then the cost ``(x(T) - goal)^2`` is paid. With the goal behind the start the cost falls towards ``v = 0``
    for every ball that does not reach the wall, where its gradient changes sign and size; the least cost, 0, lies
    beyond, at ``v* = (d + (d - goal) / e) / T``.

    Args:
        wall: Distance ``d`` of the wall from the start (m), positive.
        restitution: Share ``e`` of the speed that is left after the wall, in (0, 1].
        goal: Where the ball is to be at the end (m), below ``wall``.
        max_speed: Largest speed (m/s), at least ``v*``.
        duration: Length ``T`` of an episode (s).
        options: Batch size, discretisation and device, see :class:`~lit_awm.envs.control.ControlEnv`.

    Raises:
        ValueError: If ``restitution``, ``goal`` or ``max_speed`` is out of its range.
    """

    name = "one_bounce"
    state_names = ("position", "velocity")
    control_names = ("speed of launch",)

    def __init__(
        self,
        wall: float = 1.0,
        restitution: float = 0.8,
        goal: float = -0.5,
        max_speed: float = 4.0,
        duration: float = 1.0,
        **options: Any,
    ) -> None:
        check_positive(wall=wall, restitution=restitution, max_speed=max_speed)
        if restitution > 1:
            raise ValueError(f"restitution must be at most 1, got {restitution}.")
        if not goal < wall:
            raise ValueError(f"goal must lie before the wall at {wall}, got {goal}.")
        super().__init__(
            initial_state=(0.0, 0.0),
            control_bounds=[(0.0, max_speed)],
            domain=[(-1e30, 1e30)] * 2,  # a ball never escapes
            duration=duration,
            **options,
        )
        self.wall, self.restitution, self.goal = wall, restitution, goal
        self.best_speed = (wall + (wall - goal) / restitution) / self.duration
        if max_speed < self.best_speed:
            raise ValueError(f"max_speed must be at least {self.best_speed:g} to reach the goal, got {max_speed}.")

    def solution(self) -> Tensor:
        """Return the controls that launch the ball at ``v*``."""
        return torch.full((self.episode_length, 1), self.best_speed, dtype=torch.float64)

    def interval(self, state: Tensor, control: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Move the ball for one interval, off the wall if it meets it."""
        position, velocity = state.unbind(-1)
        velocity = torch.where(time < self.dt / 2, control[..., 0], velocity)
        beyond = position + self.dt * velocity - self.wall
        is_hit = beyond > 0
        position = self.wall + torch.where(is_hit, -self.restitution * beyond, beyond)
        velocity = torch.where(is_hit, -self.restitution * velocity, velocity)
        next_state = torch.stack([position, velocity], dim=-1)
        return next_state, -self.reward_between(state, control, next_state, time)

    def reward_between(self, state: Tensor, control: Tensor, next_state: Tensor, time: Tensor) -> Tensor:
        """Return minus the squared distance from the goal at the end of an episode, otherwise 0; shape ``(...)``."""
        return -torch.where(self.is_last_interval(time), (next_state[..., 0] - self.goal) ** 2, 0)
