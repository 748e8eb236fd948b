"""A linear state-space backbone.

Shape legend: ``B`` batch, ``C`` tokens, ``D`` hidden size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lit_awm.checks import check_count
from lit_awm.models.backbone import Backbone

SLOWEST = 1000.0  # memory, in steps, of the slowest component before any learning


class StateSpaceLayer(nn.Module):
    """A linear recurrence ``h_t = lambda h_{t-1} + u_t`` of complex numbers, between a norm and a feed-forward network.

    It is diagonal and stable by construction, ``|lambda| < 1``, as in the linear recurrent unit (Orvieto et al., 2023,
    arXiv:2303.06349). Whole sequences take ``log2(C)`` parallel passes, each of which doubles the reach of a token.

    Args:
        hidden_dim: Width ``D``.
    """

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_dim)
        self.input = nn.Linear(hidden_dim, 2 * hidden_dim, bias=False)
        rates = torch.logspace(0, -math.log10(SLOWEST), hidden_dim)  # inverse memories, from one step upwards
        self.log_rate = nn.Parameter(rates.log())
        self.angle = nn.Parameter(rates * math.pi / 2 * torch.rand(hidden_dim))
        self.output = nn.Sequential(
            nn.Linear(2 * hidden_dim, 2 * hidden_dim), nn.GELU(), nn.Linear(2 * hidden_dim, hidden_dim)
        )

    def forward(self, state: Tensor | None, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Map the next tokens ``(B, C, D)`` to ``(B, C, D)`` in parallel; return the last state ``(B, D)`` and them."""
        before, log_factor = state, self._log_factor()
        state = self._input(tokens)
        if before is not None:
            first = state[:, :1] + before.unsqueeze(1) * log_factor.exp()
            state = torch.cat([first, state[:, 1:]], dim=1)
        reach = 1
        while reach < tokens.shape[1]:
            earlier = state[:, :-reach] * (reach * log_factor).exp()
            state = torch.cat([state[:, :reach], state[:, reach:] + earlier], dim=1)
            reach *= 2
        return state[:, -1], self._output(tokens, state)

    def _log_factor(self) -> Tensor:
        return torch.complex(-self.log_rate.exp(), self.angle)

    def _input(self, tokens: Tensor) -> Tensor:
        real, imaginary = self.input(self.norm(tokens)).chunk(2, dim=-1)
        rate = self.log_rate.exp()
        gain = (1 - (-2 * rate).exp()).sqrt()  # keeps the variance of the state at that of white input
        return torch.complex(gain * real, gain * imaginary)

    def _output(self, tokens: Tensor, state: Tensor) -> Tensor:
        return tokens + self.output(torch.cat([state.real, state.imag], dim=-1))


class StateSpaceBackbone(Backbone):
    """Layers that are linear in time and nonlinear in depth: gradients decay with distance and cannot explode.

    Args:
        hidden_dim: Width ``D``.
        num_layers: Number of layers.

    Raises:
        ValueError: If a size is below 1.
    """

    def __init__(self, hidden_dim: int = 64, num_layers: int = 2) -> None:
        super().__init__()
        check_count(1, hidden_dim=hidden_dim, num_layers=num_layers)
        self.hidden_dim = hidden_dim
        self.layers = nn.ModuleList(StateSpaceLayer(hidden_dim) for _ in range(num_layers))
        self.norm = nn.LayerNorm(hidden_dim)

    def start(self, horizon: int) -> list[Tensor | None]:
        """Begin with states of zeros."""
        return [None] * len(self.layers)

    def extend(self, carry: list[Tensor | None], tokens: Tensor) -> tuple[list[Tensor | None], Tensor]:
        """Map the next tokens ``(B, C, D)`` to their features ``(B, C, D)``."""
        states: list[Tensor | None] = []
        for layer, before in zip(self.layers, carry, strict=True):
            state, tokens = layer(before, tokens)
            states.append(state)
        return states, self.norm(tokens)
