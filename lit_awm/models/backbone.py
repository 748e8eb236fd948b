"""The interface of every causal backbone.

Shape legend: ``B`` batch, ``H`` horizon, ``C`` tokens, ``D`` hidden size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from lit_awm.checks import check_horizon


class Backbone(nn.Module, ABC):
    """Map a sequence of tokens to a sequence of features, each a function of the tokens up to its own.

    Attributes:
        hidden_dim: Width ``D`` of tokens and features.
        max_horizon: Length of the longest sequence; None if there is no limit.
    """

    hidden_dim: int
    max_horizon: int | None = None

    @abstractmethod
    def start(self, horizon: int) -> Any:
        """Begin a sequence of up to ``horizon`` tokens, ``max_horizon`` at most, and return what it carries.

        That is a tree (tuples, lists, dictionaries) of tensors and numbers, which can be extended once: a backbone may
        write into it.
        """

    @abstractmethod
    def extend(self, carry: Any, tokens: Tensor) -> tuple[Any, Tensor]:
        """Map the next tokens ``(B, C, D)``, one or more, to their features ``(B, C, D)`` in parallel.

        Returns:
            The carry, which replaces the one that was given, and the features.
        """

    def check_start(self, horizon: int) -> None:
        """Reject a sequence that is longer than there are positions for.

        Raises:
            ValueError: If ``horizon`` is below 1 or beyond ``max_horizon``.
        """
        check_horizon(horizon, self.max_horizon, "the backbone", "Raise `max_horizon`.")

    def forward(self, tokens: Tensor) -> Tensor:
        """Map a whole sequence ``(B, H, D)`` to ``(B, H, D)`` in parallel."""
        return self.extend(self.start(tokens.shape[1]), tokens)[1]
