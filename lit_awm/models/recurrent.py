"""Recurrent backbones.

Shape legend: ``B`` batch, ``C`` tokens, ``D`` hidden size.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch import Tensor, nn

from lit_awm.checks import check_count
from lit_awm.models.backbone import Backbone

Cell = Literal["rnn", "gru", "lstm"]


class RecurrentBackbone(Backbone):
    """Read tokens one after the other: a gradient reaches an action through every hidden state since.

    Args:
        hidden_dim: Width ``D``.
        cell: ``"rnn"`` (Elman's, with tanh), ``"gru"`` or ``"lstm"``.
        num_layers: Number of layers.

    Raises:
        ValueError: If ``cell`` is unknown or a size is below 1.
    """

    def __init__(self, hidden_dim: int = 64, cell: Cell = "gru", num_layers: int = 1) -> None:
        super().__init__()
        check_count(1, hidden_dim=hidden_dim, num_layers=num_layers)
        if cell not in get_args(Cell):
            raise ValueError(f"cell must be one of {', '.join(get_args(Cell))}, got {cell!r}.")
        self.hidden_dim = hidden_dim
        kind = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell]
        self.network = kind(hidden_dim, hidden_dim, num_layers, batch_first=True)

    def start(self, horizon: int) -> None:
        """Begin with a hidden state of zeros."""
        return

    def extend(self, carry: Any, tokens: Tensor) -> tuple[Any, Tensor]:
        """Map the next tokens ``(B, C, D)`` to their features ``(B, C, D)``."""
        features, carry = self.network(tokens, carry)
        return carry, features
