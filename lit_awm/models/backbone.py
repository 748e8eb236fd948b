"""The interface of every causal backbone.

Shape legend: ``B`` batch, ``H`` horizon, ``D`` hidden size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """Map a sequence of tokens to a sequence of features, each a function of the tokens up to its own.

    Attributes:
        hidden_dim: Width ``D`` of tokens and features.
        max_horizon: Length of the longest sequence; None if there is no limit.
    """

    hidden_dim: int
    max_horizon: int | None = None

    @abstractmethod
    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(B, H, D)`` to ``(B, H, D)`` in parallel."""

    @abstractmethod
    def start(self, horizon: int) -> Any:
        """Begin a sequence of up to ``horizon`` tokens and return what it carries."""

    @abstractmethod
    def step(self, carry: Any, token: Tensor) -> tuple[Any, Tensor]:
        """Map the next token ``(B, D)`` to its features ``(B, D)``; return the carry and the features."""
