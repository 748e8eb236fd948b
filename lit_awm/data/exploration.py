"""Actions that explore: smooth in time, random at first and around the policy later."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchrl.envs import EnvBase, RewardSum, TransformedEnv

from lit_awm.models import Policy

LEAST_HOLD = 10.0  # steps
STEP = ("observation", "is_init", "episode_reward")  # what a policy is told of a step


def tell_rewards(env: EnvBase) -> TransformedEnv:
    """Return an environment that also tells what an episode has earned so far, as ``episode_reward``."""
    return TransformedEnv(env, RewardSum(), auto_unwrap=False)


def act(policy: Policy, observation: Tensor, is_init: Tensor, earned: Tensor, noise: Tensor | None = None) -> Tensor:
    """Return the policy's action for a step, on the observation's device and in its type, whatever the policy's.

    Args:
        policy: The policy.
        observation: ``(N, S)``.
        is_init: Whether an episode begins with this step ``(N, 1)``.
        earned: What the episode has earned before it ``(N, 1)``.
        noise: Standard normal numbers ``(N, A)``, or None for the mode.
    """
    like = policy.state_scaler.mean
    noise = None if noise is None else noise.to(like)
    return policy.act(observation.to(like), is_init.to(like.device), earned.to(like), noise).to(observation)


def usual_hold(steps: int) -> float:
    """Return the mean number of steps for which what is random is held where nothing else is said.

    A tenth of all steps, and ten at least: held for shorter, it averages out, and trajectories hardly differ.
    """
    return max(LEAST_HOLD, steps / 10)


class Exploration(nn.Module):
    """Act at random until told otherwise, then as the policy does, plus noise.

    Random actions and noise are piecewise constant in time, since independent draws at every step would average out
    over an episode and leave most of the state space unseen.

    Args:
        policy: The policy to explore around, or None to act at random for ever.
        action_dim: Size ``A`` of an action.
        noise: Standard deviation of the noise added to the policy's action.
        mean_hold: Mean number of steps for which a draw is held.
    """

    at_random: Tensor

    def __init__(self, policy: Policy | None, action_dim: int, noise: float, mean_hold: float) -> None:
        super().__init__()
        self.policy = policy
        self.action_dim, self.noise, self.mean_hold = action_dim, noise, mean_hold
        self.register_buffer("at_random", torch.tensor(True))  # travels with the policy to where it acts
        self._held: Tensor | None = None

    def forward(self, observation: Tensor, is_init: Tensor, earned: Tensor) -> Tensor:
        """Map observations ``(N, S)`` to actions ``(N, A)`` in [-1, 1].

        ``is_init`` ``(N, 1)`` marks first steps, ``earned`` ``(N, 1)`` is what the episode has earned before.
        """
        draw = observation.new_empty(len(observation), self.action_dim)
        at_random = self.policy is None or bool(self.at_random)
        draw = draw.uniform_(-1, 1) if at_random else draw.normal_()
        renew = is_init | (torch.rand_like(draw[:, :1]) < 1 / self.mean_hold)
        self._held = draw if self._held is None else torch.where(renew, draw, self._held)
        if at_random:
            return self._held
        assert self.policy is not None
        chosen = act(self.policy, observation, is_init, earned, self._held)
        action = (chosen + self.noise * self._held).clamp(-1, 1)
        self.policy.note(action)
        return action
