"""What is known about a system, as functions of what an agent sees: its reward, and its step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchrl.envs import TransformedEnv

from lit_awm.envs.control import ControlEnv


def find_clock_step(env: TransformedEnv) -> float | None:
    """Return what the clock at the end of an observation advances by in a step, or None if there is no clock."""
    return 2 / env.episode_length if "clock" in env.observation_spec.keys() else None


class _Known(nn.Module):
    """Read observations and actions in physical units.

    Args:
        env: An environment made by :func:`~lit_awm.envs.make_env`.
        task: The system whose reward and dynamics apply; None for that of ``env``. Another one has the same states,
            controls and ``dt`` but may have another ``episode_length``; time is read from the clock of ``env``.
    """

    low: Tensor
    high: Tensor

    def __init__(self, env: TransformedEnv, task: ControlEnv | None = None) -> None:
        super().__init__()
        system = env.base_env
        task = system if task is None else task
        self.reward_between, self.step_fn = task.reward_between, task.step_fn  # whose state is not this module's
        self.duration, self.state_size = system.duration, len(system.initial_state)
        low, high = system.control_bounds.to(system.float_type).unbind(-1)
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)

    def _control(self, action: Tensor) -> Tensor:
        return self.low + (action + 1) / 2 * (self.high - self.low)

    def _time(self, observation: Tensor) -> Tensor:
        return (observation[..., -1] + 1) / 2 * self.duration


class KnownReward(_Known):
    """The reward of a step from observation, action and next observation: the cost is known, the dynamics are not.

    See :meth:`~lit_awm.envs.control.ControlEnv.reward_between`. Where the state is observed with noise it is the reward
    of what is seen: not what a step earns, but right in imagination, as far as a world model predicts the state without
    the noise.

    Args:
        env: An environment made by :func:`~lit_awm.envs.make_env`.
        task: A system of another length whose reward to give, or None.

    Raises:
        ValueError: If the reward is not a known function of the observation: the environment is no system of the
            testbed, or its clock, which costs that depend on time need, is not observed.
    """

    def __init__(self, env: TransformedEnv, task: ControlEnv | None = None) -> None:
        if not self.is_known(env):
            raise ValueError(
                "env must be a system of the testbed with observe_time true, got one whose reward is no known function "
                "of the observation. Set `known_reward: false` so that the world model learns it."
            )
        super().__init__(env, task)

    @staticmethod
    def is_known(env: TransformedEnv) -> bool:
        """Tell whether the reward is a known function of what an agent sees of the environment, but for noise."""
        return isinstance(env.base_env, ControlEnv) and "clock" in env.observation_spec.keys()

    def forward(self, observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
        """Map ``(..., S)``, ``(..., A)`` in [-1, 1] and ``(..., S)`` to the reward ``(...)``."""
        n = self.state_size  # what follows are distractors and the clock
        state, next_state = observation[..., :n], next_observation[..., :n]
        return self.reward_between(state, self._control(action), next_state, self._time(observation))


class KnownStep(_Known):
    """The step of a system from observation and action, differentiable: for a ``SimulatorWorldModel``.

    See :meth:`~lit_awm.envs.control.ControlEnv.step_fn`.

    Args:
        env: An environment made by :func:`~lit_awm.envs.make_env`.
        task: A system of another length whose step to take, or None.

    Raises:
        ValueError: If the next observation is not a known function of observation and action: the environment is no
            system of the testbed, its clock is not observed, or there is noise or a distractor in what is seen.
    """

    def __init__(self, env: TransformedEnv, task: ControlEnv | None = None) -> None:
        if not self.is_known(env):
            raise ValueError(
                "env must be a system of the testbed with observe_time true, observation_noise 0 and no distractors, "
                "got one whose step is no known function of the observation."
            )
        super().__init__(env, task)
        self.clock_step = 2 / env.episode_length

    @staticmethod
    def is_known(env: TransformedEnv) -> bool:
        """Tell whether the step is a known function of what an agent sees of the environment."""
        return KnownReward.is_known(env) and not {"noisy_state", "distractors"} & set(env.observation_spec.keys())

    def forward(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(..., S)`` and ``(..., A)`` in [-1, 1] to the next observation and the reward ``(...)``."""
        state, clock = observation[..., : self.state_size], observation[..., -1:]
        next_state, reward = self.step_fn(state, self._control(action), self._time(observation))
        return torch.cat([next_state, clock + self.clock_step], dim=-1), reward
