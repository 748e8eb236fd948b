"""What a step is worth.

Shape legend: ``...`` any leading dimensions, ``S`` state size, ``A`` action size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_awm.checks import check_count
from lit_awm.models.perceptron import make_perceptron
from lit_awm.models.standardizer import Standardizer


class RewardModel(nn.Module):
    """Estimate the reward of a step from the state before it, the action, and the state after it.

    It stands where a known reward function would: what a world model predicts is then states alone. Where a reward is a
    head of the world model instead, the two share a network, and a reward that jumps, as where an episode ends, makes
    states worse. A :class:`~lit_awm.modules.WorldModelModule` fits it to recorded steps, to none that a teacher has
    labelled.

    Args:
        state_dim: Size ``S`` of a state.
        action_dim: Size ``A`` of an action.
        hidden_dim: Width of the network.
        num_layers: Number of hidden layers.

    Raises:
        ValueError: If a size is below 1.
    """

    def __init__(self, state_dim: int, action_dim: int, hidden_dim: int = 64, num_layers: int = 2) -> None:
        super().__init__()
        check_count(1, state_dim=state_dim, action_dim=action_dim, hidden_dim=hidden_dim, num_layers=num_layers)
        self.state_scaler, self.action_scaler = Standardizer(state_dim), Standardizer(action_dim)
        self.reward_scaler = Standardizer(1)
        self.network = make_perceptron([2 * state_dim + action_dim] + [hidden_dim] * num_layers, 1)

    def forward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """Return the reward ``(...)`` of taking ``(..., A)`` in ``(..., S)`` and coming to ``(..., S)``."""
        shape = next_state.shape[:-1]  # that of several members may have a dimension more
        read = self.state_scaler(state), self.action_scaler(action), self.state_scaler(next_state)
        inputs = [each.expand(*shape, -1) for each in read]
        return self.reward_scaler.inverse(self.network(torch.cat(inputs, dim=-1))).squeeze(-1)

    def adopt_statistics(self, state: Standardizer, action: Standardizer, reward: Standardizer) -> None:
        """Read states and actions, and write rewards, in given standard units."""
        self.state_scaler.load_state_dict(state.state_dict())
        self.action_scaler.load_state_dict(action.state_dict())
        self.reward_scaler.load_state_dict(reward.state_dict())
