"""A world model as a TorchRL environment, as it is done where models are unrolled by collectors; to compare with."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torch import Tensor
from torchrl.data import Composite, Unbounded
from torchrl.envs import EnvBase

from lit_awm.models import Policy, WorldModel


class WorldModelEnv(EnvBase):
    """Step a Markovian world model as a TorchRL environment; gradients pass.

    Args:
        world_model: A model that carries nothing but the state.
        initial_state: Where episodes begin ``(B, S)``.
    """

    def __init__(self, world_model: WorldModel, initial_state: Tensor) -> None:
        batch, device = initial_state.shape[:1], initial_state.device
        super().__init__(device=device, batch_size=batch)
        self._step_model = (world_model,)  # in a tuple, since the model is not a part of the environment
        self._initial_state = initial_state
        self.observation_spec = Composite(observation=Unbounded(initial_state.shape, device=device), shape=batch)
        self.action_spec = Unbounded((*batch, world_model.action_dim), device=device)
        self.reward_spec = Unbounded((*batch, 1), device=device)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        return TensorDict({"observation": self._initial_state}, self.batch_size)

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        (model,) = self._step_model
        _, state, reward = model.step(model.start(tensordict["observation"], 1), tensordict["action"])
        done = torch.zeros(*self.batch_size, 1, dtype=torch.bool, device=self.device)
        return TensorDict({"observation": state, "reward": reward.unsqueeze(-1), "done": done}, self.batch_size)

    def _set_seed(self, seed: int | None) -> None:
        """Nothing here is random."""


def roll_out_in_environment(world_model: WorldModel, policy: Policy, initial_state: Tensor, horizon: int) -> Tensor:
    """Return the sum of all rewards of a rollout, differentiable in the policy's parameters."""
    env = WorldModelEnv(world_model, initial_state)
    actor = TensorDictModule(lambda state: policy.sample(state.detach()), ["observation"], ["action"])
    return env.rollout(horizon, actor, break_when_any_done=False)["next", "reward"].sum()
