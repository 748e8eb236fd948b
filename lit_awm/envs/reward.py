"""The reward of a system as a known function of what an agent sees."""

from __future__ import annotations

from torch import Tensor, nn
from torchrl.envs import TransformedEnv

from lit_awm.envs.control import ControlEnv


class KnownReward(nn.Module):
    """The reward of a step from observation, action and next observation: the cost is known, the dynamics are not.

    See :meth:`~lit_awm.envs.control.ControlEnv.reward_between`.

    Args:
        env: An environment made by :func:`~lit_awm.envs.make_env`.

    Raises:
        ValueError: If the observation has no clock, which costs that depend on time need.
    """

    low: Tensor
    high: Tensor

    def __init__(self, env: TransformedEnv) -> None:
        super().__init__()
        system = env.base_env
        assert isinstance(system, ControlEnv)
        if "clock" not in env.observation_spec.keys():
            raise ValueError(
                "observe_time must be true for a known reward, got false. Observe the time, or set "
                "`known_reward: false` so that the world model learns the reward."
            )
        self.duration, self.reward_between = system.duration, system.reward_between
        self.state_size = len(system.initial_state)
        low, high = system.control_bounds.to(system.float_type).unbind(-1)
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)

    def forward(self, observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
        """Map ``(..., S)``, ``(..., A)`` in [-1, 1] and ``(..., S)`` to the reward ``(...)``."""
        control = self.low + (action + 1) / 2 * (self.high - self.low)
        time = (observation[..., -1] + 1) / 2 * self.duration
        n = self.state_size  # what follows are distractors and the clock
        return self.reward_between(observation[..., :n], control, next_observation[..., :n], time)
