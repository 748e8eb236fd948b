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
        ValueError: If the reward is not a known function of the observation: the environment is no system of the
            testbed, its clock, which costs that depend on time need, is not observed, or its state only with noise.
    """

    low: Tensor
    high: Tensor

    def __init__(self, env: TransformedEnv) -> None:
        super().__init__()
        if not self.is_known(env):
            raise ValueError(
                "env must be a system of the testbed with observe_time true and observation_noise 0, got one whose "
                "reward is no known function of the observation. Set `known_reward: false` so that the world model "
                "learns it."
            )
        system = env.base_env
        self.duration, self.reward_between = system.duration, system.reward_between
        self.state_size = len(system.initial_state)
        low, high = system.control_bounds.to(system.float_type).unbind(-1)
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)

    @staticmethod
    def is_known(env: TransformedEnv) -> bool:
        """Tell whether the reward is a known function of what an agent sees of the environment."""
        seen = env.observation_spec.keys()
        return isinstance(env.base_env, ControlEnv) and "clock" in seen and "noisy_state" not in seen

    def forward(self, observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
        """Map ``(..., S)``, ``(..., A)`` in [-1, 1] and ``(..., S)`` to the reward ``(...)``."""
        control = self.low + (action + 1) / 2 * (self.high - self.low)
        time = (observation[..., -1] + 1) / 2 * self.duration
        n = self.state_size  # what follows are distractors and the clock
        return self.reward_between(observation[..., :n], control, next_observation[..., :n], time)
