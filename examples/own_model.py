"""A backbone of your own in a recipe: ``cd examples; lit-awm fit --config cancer_treatment --config own_model.yaml``.

A world model is a backbone and what tokens are made of; ``ActionsWorldModel`` and ``HistoryWorldModel`` take any
backbone. A package offers its models by the names of their classes in its ``pyproject.toml``:
``[project.entry-points."lit_awm.models"]``, ``ConvolutionBackbone = "my_package:ConvolutionBackbone"``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_awm.models import Backbone


class ConvolutionBackbone(Backbone):
    """Causal convolutions, each of which sees twice as far as the one before, with a sum of what has been.

    Args:
        hidden_dim: Width ``D``.
        num_layers: Number of layers; the last one sees ``2^num_layers`` tokens, and all others by the sum.
    """

    def __init__(self, hidden_dim: int = 64, num_layers: int = 4) -> None:
        super().__init__()
        self.hidden_dim = hidden_dim
        self.layers = nn.ModuleList(
            nn.Conv1d(hidden_dim, hidden_dim, kernel_size=2, dilation=2**index) for index in range(num_layers)
        )
        self.sum = nn.Linear(hidden_dim, hidden_dim)

    def start(self, horizon: int) -> list[Tensor | None]:
        """Begin without a past."""
        return [None] * (len(self.layers) + 1)

    def extend(self, carry: list[Tensor | None], tokens: Tensor) -> tuple[list[Tensor | None], Tensor]:
        """Map the next tokens ``(B, C, D)`` to ``(B, C, D)``; the carry is what each layer still needs of the past."""
        after: list[Tensor | None] = []
        for layer, past in zip(self.layers, carry[:-1], strict=True):
            reach = layer.dilation[0]
            past = tokens.new_zeros(len(tokens), reach, self.hidden_dim) if past is None else past
            seen = torch.cat([past, tokens], dim=1)
            after.append(seen[:, -reach:])
            tokens = tokens + layer(seen.transpose(1, 2)).transpose(1, 2).relu()
        total = tokens.cumsum(dim=1) + (0 if carry[-1] is None else carry[-1])
        after.append(total[:, -1:])
        return after, tokens + self.sum(total) / 10
