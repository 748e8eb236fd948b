"""Credit over a long and noisy wait (after Ma et al., 2024, arXiv:2402.05290)."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lit_awm.checks import check_at_least
from lit_awm.envs.control import ControlEnv


class CreditAssignment(ControlEnv):
    """Choose well once, long before it counts.

    The first action is remembered. Each of the last ``final_length`` steps costs ``(memory - goal)^2``; each step
    between pays a random reward, normal with mean 0, that no action has to do with. Hence the expected cost is
    ``final_length (a_1 - goal)^2`` and the least is 0, at ``a_1 = goal``.

    The noise is part of the reward that the environment emits; ``step_fn`` and ``reward_between`` give its mean.

    Args:
        noise: Standard deviation of the distracting rewards, at least 0.
        final_length: Number of final steps, at least 1 and below ``episode_length``; None for a tenth of the episode.
        goal: The best first action, in [-1, 1].
        episode_length: Number of steps.
        options: Batch size and device, see :class:`~lit_awm.envs.control.ControlEnv`.

    Raises:
        ValueError: If ``noise``, ``final_length`` or ``goal`` is out of its range.
    """

    name = "credit_assignment"
    state_names = ("memory",)
    control_names = ("choice",)

    def __init__(
        self,
        noise: float = 0.1,
        final_length: int | None = None,
        goal: float = 0.5,
        episode_length: int = 100,
        **options: Any,
    ) -> None:
        check_at_least(0, noise=noise)
        final_length = max(1, episode_length // 10) if final_length is None else final_length
        if not 1 <= final_length < episode_length:
            raise ValueError(
                f"final_length must be at least 1 and below episode_length {episode_length}, got {final_length}."
            )
        if not -1 <= goal <= 1:
            raise ValueError(f"goal must lie in [-1, 1], got {goal}.")
        super().__init__(
            initial_state=[0.0],
            control_bounds=[(-1, 1)],
            duration=episode_length,
            episode_length=episode_length,
            **options,
        )
        self.noise, self.final_length, self.goal = noise, final_length, goal

    def solution(self) -> Tensor:
        """Return the controls that choose ``goal``."""
        return torch.full((self.episode_length, 1), self.goal, dtype=torch.float64)

    def interval(self, state: Tensor, control: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Remember the first action."""
        next_state = torch.where((time < self.dt / 2).unsqueeze(-1), control, state)
        return next_state, -self.reward_between(state, control, next_state, time)

    def reward_between(self, state: Tensor, control: Tensor, next_state: Tensor, time: Tensor) -> Tensor:
        """Return the mean reward ``(...)`` of a step."""
        return -torch.where(self._is_final(time), (next_state[..., 0] - self.goal) ** 2, 0)

    def _is_final(self, time: Tensor) -> Tensor:
        return time > self.duration - (self.final_length + 0.5) * self.dt

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        step, time = super()._step(tensordict), tensordict["time"]
        noise = torch.randn(time.shape, generator=self.rng, device=self.rng.device, dtype=self.float_type).to(time)
        distracts = (time > self.dt / 2) & ~self._is_final(time)
        return step.set("reward", step["reward"] + self.noise * noise * distracts)
