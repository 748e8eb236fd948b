"""Policies: from a state in raw units to an action in [-1, 1].

Shape legend: ``...`` any leading dimensions, ``S`` state size, ``A`` action size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from lit_awm.checks import check_at_least, check_count, check_number
from lit_awm.models.perceptron import make_perceptron
from lit_awm.models.squash import Squash
from lit_awm.models.standardizer import Standardizer


class Policy(nn.Module, ABC):
    """Maps states to actions; ``sample`` is what imagination and exploration use.

    Args:
        state_dim: Size ``S`` of a state.
        action_dim: Size ``A`` of an action.

    Attributes:
        is_stochastic: Whether noise decides its actions.
        reads_history: Whether it has to be told of every step of an episode in turn, by ``act``.
    """

    is_stochastic: bool
    reads_history: ClassVar[bool] = False

    def __init__(self, state_dim: int, action_dim: int) -> None:
        super().__init__()
        self.state_dim, self.action_dim = state_dim, action_dim
        self.state_scaler = Standardizer(state_dim)

    def act(self, state: Tensor, is_init: Tensor, earned: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the action ``(N, A)`` of the next step of ``N`` episodes, as ``sample`` does.

        Args:
            state: States in raw units ``(N, S)``.
            is_init: Whether an episode begins with this step ``(N, 1)``.
            earned: What the episode has earned before it ``(N, 1)``.
            noise: Standard normal numbers ``(N, A)``, or None.
        """
        return self.sample(state, noise)

    def note(self, action: Tensor) -> None:
        """Be told what was done in the step of the last ``act``, ``(N, A)``, for example with noise."""

    @abstractmethod
    def sample(self, state: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the action ``(..., A)`` for ``(..., S)``, differentiable in both and in the parameters.

        Args:
            state: States in raw units.
            noise: Standard normal numbers ``(..., A)`` that decide a stochastic action; None for the mode.
        """


class DeterministicPolicy(Policy):
    """``a = tanh(network(s))``.

    Args:
        state_dim: Size ``S`` of a state.
        action_dim: Size ``A`` of an action.
        hidden_dim: Width of the network.
        num_layers: Number of hidden layers; 0 for a linear map.
        num_frequencies: Number of octaves of sine and cosine features of each state component; more make actions
            that change sharply with time or state easier to learn.
        least_slope: In training mode the least derivative of the squashing, so that a policy that has learned to do all
            or nothing can come back, see :class:`~lit_awm.models.squash.Squash`; below 1. Gradients are then not exact
            where actions are saturated: leave it 0, for the true derivative, where they pass through the states that
            the policy reads.

    Raises:
        ValueError: If ``hidden_dim`` is below 1, another number below 0, or ``least_slope`` 1 or more.
    """

    is_stochastic = False

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        hidden_dim: int = 64,
        num_layers: int = 2,
        num_frequencies: int = 0,
        least_slope: float = 0.0,
    ) -> None:
        super().__init__(state_dim, action_dim)
        if not 0 <= least_slope < 1:
            raise ValueError(f"least_slope must be at least 0 and below 1, got {least_slope}.")
        self.network = PolicyNetwork(state_dim, action_dim, hidden_dim, num_layers, num_frequencies)
        self.least_slope = least_slope

    def forward(self, state: Tensor) -> Tensor:
        """Map ``(..., S)`` to the action ``(..., A)`` in [-1, 1]."""
        value = self.network(self.state_scaler(state))
        if self.training and self.least_slope > 0 and value.requires_grad:
            return Squash.apply(value, self.least_slope)  # type: ignore[no-untyped-call]
        return value.tanh()

    def sample(self, state: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the action; ``noise`` has nothing to decide."""
        return self(state)


class TanhNormalPolicy(Policy):
    """``a = tanh(mean(s) + deviation(s) * noise)``.

    Args:
        state_dim: Size ``S`` of a state.
        action_dim: Size ``A`` of an action.
        hidden_dim: Width of the network.
        num_layers: Number of hidden layers.
        num_frequencies: Octaves of sine and cosine features, see :class:`DeterministicPolicy`.
        initial_deviation: Standard deviation before the squashing, before any learning, within what it is clamped to:
            [0.001, 7].

    Raises:
        ValueError: If ``initial_deviation`` is out of its range, ``hidden_dim`` is below 1, or another number below 0.
    """

    is_stochastic = True

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        hidden_dim: int = 64,
        num_layers: int = 2,
        num_frequencies: int = 0,
        initial_deviation: float = 0.3,
    ) -> None:
        super().__init__(state_dim, action_dim)
        check_number(initial_deviation=initial_deviation)
        if not 0.001 <= initial_deviation <= 7:
            raise ValueError(f"initial_deviation must be between 0.001 and 7, got {initial_deviation}.")
        self.network = PolicyNetwork(state_dim, 2 * action_dim, hidden_dim, num_layers, num_frequencies)
        self.log_initial_deviation = torch.tensor(initial_deviation).log().item()

    def forward(self, state: Tensor) -> Distribution:
        """Map ``(..., S)`` to a distribution over actions ``(..., A)`` with ``rsample`` and ``log_prob``."""
        normal = Independent(Normal(*self._mean_and_deviation(state)), 1)
        return TransformedDistribution(normal, TanhTransform(cache_size=1))

    def sample(self, state: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the action that ``noise`` decides, or the mode of the normal, squashed."""
        mean, deviation = self._mean_and_deviation(state)
        return (mean if noise is None else mean + deviation * noise).tanh()

    def read(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the network's outputs ``(..., 2 A)`` say: mean and standard deviation before the squashing."""
        mean, log_deviation = outputs.chunk(2, dim=-1)
        return mean, (log_deviation + self.log_initial_deviation).clamp(-7, 2).exp()

    def _mean_and_deviation(self, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.read(self.network(self.state_scaler(state)))


class PolicyNetwork(nn.Module):
    """A multilayer perceptron whose output starts near zero, optionally over sine and cosine features.

    Args:
        in_features: Size of the input.
        out_features: Size of the output.
        hidden_dim: Width.
        num_layers: Number of hidden layers.
        num_frequencies: Number of octaves of features, from a period of about the data's width downwards.

    Raises:
        ValueError: If ``hidden_dim`` is below 1, or ``num_layers`` or ``num_frequencies`` below 0.
    """

    def __init__(
        self, in_features: int, out_features: int, hidden_dim: int, num_layers: int, num_frequencies: int
    ) -> None:
        super().__init__()
        check_count(1, hidden_dim=hidden_dim)
        check_at_least(0, num_layers=num_layers, num_frequencies=num_frequencies)
        self.register_buffer("frequencies", 2.0 ** torch.arange(num_frequencies), persistent=False)
        sizes = [in_features * (1 + 2 * num_frequencies)] + [hidden_dim] * num_layers
        self.layers = make_perceptron(sizes, out_features)
        output = self.layers[-1]
        assert isinstance(output, nn.Linear)
        nn.init.normal_(output.weight, std=0.01)
        nn.init.zeros_(output.bias)

    frequencies: Tensor

    def forward(self, value: Tensor) -> Tensor:
        """Map ``(..., in_features)`` to ``(..., out_features)``."""
        if len(self.frequencies):
            angles = (value.unsqueeze(-1) * self.frequencies).flatten(-2)
            value = torch.cat([value, angles.sin(), angles.cos()], dim=-1)
        return self.layers(value)
