"""Self-attention and nothing else, for the theory.

Shape legend: ``B`` batch, ``H`` horizon, ``D`` hidden size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_awm.checks import check_at_least
from lit_awm.models.backbone import Backbone
from lit_awm.models.transformer import KeyValueCache


class AttentionBackbone(Backbone):
    """One head of causal self-attention, ``softmax(q K' / sqrt(D)) V``: no norm, no residual, no feed-forward network.

    The backbone for which Ma et al. (2024, arXiv:2402.05290) prove that policy gradients grow polynomially.

    Args:
        hidden_dim: Width ``D``.
        max_horizon: Number of learned positions, the longest sequence possible.

    Raises:
        ValueError: If a size is below 1.
    """

    def __init__(self, hidden_dim: int = 64, max_horizon: int = 100) -> None:
        super().__init__()
        check_at_least(1, hidden_dim=hidden_dim, max_horizon=max_horizon)
        self.hidden_dim, self.max_horizon = hidden_dim, max_horizon
        self.positions = nn.Parameter(0.02 * torch.randn(1, max_horizon, hidden_dim))
        self.query_key_value = nn.Linear(hidden_dim, 3 * hidden_dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(B, H, D)`` to ``(B, H, D)`` in parallel."""
        query, key, value = self.query_key_value(tokens + self.positions[:, : tokens.shape[1]]).chunk(3, dim=-1)
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)

    def start(self, horizon: int) -> KeyValueCache:
        """Begin a sequence of up to ``horizon`` tokens."""
        return KeyValueCache(horizon, num_layers=1)

    def step(self, carry: KeyValueCache, token: Tensor) -> tuple[KeyValueCache, Tensor]:
        """Map the next token ``(B, D)`` to its features ``(B, D)``."""
        heads = self.query_key_value(token + self.positions[0, carry.length]).view(len(token), 3, 1, 1, -1)
        query, key_value = heads[:, 0], heads[:, 1:].transpose(0, 1)
        key, value = carry.append(0, key_value)
        carry.length += 1
        return carry, F.scaled_dot_product_attention(query, key, value).flatten(1)
