"""Critics: the value of states, and of actions in them.

Shape legend: ``...`` any leading dimensions, ``S`` state size, ``A`` action size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_awm.checks import check_count
from lit_awm.models.perceptron import make_perceptron
from lit_awm.models.standardizer import Standardizer


class Critic(nn.Module):
    """Estimate the discounted return that follows a state.

    Args:
        state_dim: Size ``S`` of a state.
        hidden_dim: Width of the network.
        num_layers: Number of hidden layers.

    Raises:
        ValueError: If a size is below 1.
    """

    def __init__(self, state_dim: int, hidden_dim: int = 64, num_layers: int = 2) -> None:
        super().__init__()
        check_count(1, state_dim=state_dim, hidden_dim=hidden_dim, num_layers=num_layers)
        self.state_scaler, self.value_scaler = Standardizer(state_dim), Standardizer(1)
        self.network = make_perceptron([state_dim] + [hidden_dim] * num_layers, 1)
        for parameter in self.network[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, state: Tensor) -> Tensor:
        """Map ``(..., S)`` to the value ``(...)``, in units of reward."""
        return self.value_scaler.inverse(self.network(self.state_scaler(state))).squeeze(-1)


class ActionCritic(nn.Module):
    """Estimate the discounted return that follows an action in a state, both in standard units.

    Args:
        state_dim: Size ``S`` of a state.
        action_dim: Size ``A`` of an action.
        hidden_dim: Width of the network.
        num_layers: Number of hidden layers.

    Raises:
        ValueError: If a size is below 1.
    """

    def __init__(self, state_dim: int, action_dim: int, hidden_dim: int = 256, num_layers: int = 2) -> None:
        super().__init__()
        check_count(1, state_dim=state_dim, action_dim=action_dim, hidden_dim=hidden_dim, num_layers=num_layers)
        self.network = make_perceptron([state_dim + action_dim] + [hidden_dim] * num_layers, 1)

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        """Map ``(..., S)`` and ``(..., A)`` to the value ``(..., 1)``, in standard units of reward."""
        return self.network(torch.cat([state, action], dim=-1))


@torch.no_grad()
def lambda_returns(rewards: Tensor, values: Tensor, discount: float, trace: float) -> Tensor:
    """Return the TD(lambda) targets ``(B, H)`` of the states in which rewards ``(B, H)`` were earned.

    ``G_t = r_t + discount * ((1 - trace) * v_{t+1} + trace * G_{t+1})`` with ``G_{H+1} = v_{H+1}``; ``values`` are
    ``v_2 .. v_{H+1}``, ``(B, H)``.
    """
    target, targets = values[:, -1], []
    for reward, value in zip(rewards.flip(1).unbind(1), values.flip(1).unbind(1), strict=True):
        target = reward + discount * ((1 - trace) * value + trace * target)
        targets.append(target)
    return torch.stack(targets[::-1], dim=1)
