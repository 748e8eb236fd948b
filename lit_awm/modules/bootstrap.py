"""What follows the end of an imagined trajectory.

Shape legend: ``B`` batch, ``H`` horizon, ``S`` state size.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_awm.checks import check_share
from lit_awm.distributed import gather
from lit_awm.imagination import Imagined
from lit_awm.models.continuation import while_it_goes_on
from lit_awm.models.critic import Critic, lambda_returns


class ValueBootstrap(nn.Module):
    """A critic that stands for all rewards after the imagination horizon, so that a long task needs only a short one.

    It is fitted to the TD(lambda) returns of imagined trajectories, to which a target network, a moving average of it,
    gives the values (Hafner et al., 2020, arXiv:1912.01603). The policy's gradient passes through the target network's
    value of the last state.

    Args:
        state_dim: Size ``S`` of a state.
        discount: Factor in (0, 1] by which a reward counts less with every step.
        trace: Share in [0, 1] of longer imagined returns in the targets; 1 takes the value of the last state alone.
        target_rate: Share in (0, 1] of the critic that the target network takes over with every update.
        hidden_dim: Width of the critic.
        num_layers: Number of its hidden layers.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        state_dim: int,
        discount: float = 0.99,
        trace: float = 0.95,
        target_rate: float = 0.02,
        hidden_dim: int = 64,
        num_layers: int = 2,
    ) -> None:
        super().__init__()
        check_share(discount=discount, target_rate=target_rate)
        if not 0 <= trace <= 1:
            raise ValueError(f"trace must be between 0 and 1, got {trace}.")
        self.discount, self.trace, self.target_rate = discount, trace, target_rate
        self.critic = Critic(state_dim, hidden_dim, num_layers)
        self.target = copy.deepcopy(self.critic).requires_grad_(False)

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the critic."""
        return list(self.critic.parameters())

    def adopt_statistics(self, state_scaler: nn.Module) -> None:
        """Read states in given standard units."""
        for network in (self.critic, self.target):
            network.state_scaler.load_state_dict(state_scaler.state_dict())

    def returns(self, imagined: Imagined) -> Tensor:
        """Return the discounted imagined returns ``(B,)`` with the value of the last state, for the policy to raise.

        What follows is weighted by the probability that the episode has not ended.
        """
        horizon = imagined.rewards.shape[1]
        weights = self.discount ** torch.arange(horizon + 1).to(imagined.rewards)
        tail = while_it_goes_on(self.target(imagined.states[:, -1]), imagined.survival[:, -1])
        with torch.autocast(weights.device.type, enabled=False):  # a sum of many
            return imagined.rewards @ weights[:-1] + weights[-1] * tail

    def loss(self, imagined: Imagined) -> Tensor:
        """Return the critic's mean squared error, in units of its first targets' spread.

        The error of a state is weighted by the probability that the episode has not ended before it.
        """
        states, survival = imagined.states.detach(), imagined.survival.detach()
        values = while_it_goes_on(self.target(states[:, 1:]).detach(), survival[:, 1:])
        targets = lambda_returns(imagined.rewards.detach(), values, self.discount, self.trace)
        if not self.critic.value_scaler.is_fitted:
            first, every = gather(targets[:, :1]), gather(targets.reshape(-1, 1))  # the first ones go on for sure
            are_alike = first.std(correction=0) < 1e-3 * first.square().mean().sqrt()  # and tell of no spread
            for network in (self.critic, self.target):
                network.value_scaler.fit(every if are_alike else first)
        scale = self.critic.value_scaler.scale
        predicted = while_it_goes_on(self.critic(states[:, :-1]), survival[:, :-1])
        return F.mse_loss(predicted / scale, targets / scale)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the target network towards the critic, by ``target_rate``."""
        for target, parameter in zip(self.target.parameters(), self.critic.parameters(), strict=True):
            target.lerp_(parameter, self.target_rate)
