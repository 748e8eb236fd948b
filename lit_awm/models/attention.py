"""Self-attention and nothing else, for the theory.

Shape legend: ``B`` batch, ``C`` tokens, ``D`` hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_awm.checks import check_count
from lit_awm.models.backbone import Backbone
from lit_awm.models.cache import KeyValueCache, attend, check_room


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
        check_count(1, hidden_dim=hidden_dim, max_horizon=max_horizon)
        self.hidden_dim, self.max_horizon = hidden_dim, max_horizon
        self.positions = nn.Parameter(0.02 * torch.randn(1, max_horizon, hidden_dim))
        self.query_key_value = nn.Linear(hidden_dim, 3 * hidden_dim, bias=False)

    def start(self, horizon: int) -> KeyValueCache:
        """Begin a sequence of up to ``horizon`` tokens."""
        self.check_start(horizon)
        return KeyValueCache(horizon)

    def extend(self, carry: KeyValueCache, tokens: Tensor) -> tuple[KeyValueCache, Tensor]:
        """Map the next tokens ``(B, C, D)`` to their features ``(B, C, D)`` and add them to the cache."""
        length = carry.length + tokens.shape[1]
        check_room(carry, tokens.shape[1])
        tokens = tokens + self.positions[:, carry.length : length]
        query, key, value = self.query_key_value(tokens).unsqueeze(1).chunk(3, dim=-1)
        attended, memory = attend(query, key, value, carry, layer=0)
        return KeyValueCache(carry.horizon, length, (memory,)), attended.squeeze(1)
