"""A causal transformer with a parallel and an incremental form.

Shape legend: ``B`` batch, ``C`` tokens, ``D`` hidden size, ``K`` heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_awm.checks import check_count
from lit_awm.models.backbone import Backbone
from lit_awm.models.cache import KeyValueCache, Memory, attend, check_room


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and feed-forward network, both residual.

    Args:
        hidden_dim: Width ``D``.
        num_heads: Number ``K`` of heads, a divisor of ``hidden_dim``.
        feedforward_dim: Width of the feed-forward network.
    """

    def __init__(self, hidden_dim: int, num_heads: int, feedforward_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(hidden_dim)
        self.query_key_value = nn.Linear(hidden_dim, 3 * hidden_dim)
        self.attention_out = nn.Linear(hidden_dim, hidden_dim)
        self.feedforward = nn.Sequential(
            nn.LayerNorm(hidden_dim),
            nn.Linear(hidden_dim, feedforward_dim),
            nn.GELU(),
            nn.Linear(feedforward_dim, hidden_dim),
        )

    def forward(self, tokens: Tensor, cache: KeyValueCache, layer: int) -> tuple[Tensor, Memory]:
        """Map new tokens ``(B, C, D)`` to ``(B, C, D)``; return also the layer's memory with them in it."""
        batch, length, width = tokens.shape
        heads = self.query_key_value(self.attention_norm(tokens))
        heads = heads.view(batch, length, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
        attended, memory = attend(heads[0], heads[1], heads[2], cache, layer)
        tokens = tokens + self.attention_out(attended.transpose(1, 2).reshape(batch, length, width))
        return tokens + self.feedforward(tokens), memory


class CausalTransformer(Backbone):
    """A causal transformer: every feature has a direct path to every token up to its own.

    Args:
        hidden_dim: Width ``D`` of tokens and features.
        num_layers: Number of blocks.
        num_heads: Heads of a block, a divisor of ``hidden_dim``.
        max_horizon: Number of learned positions, the longest sequence possible.
        feedforward_factor: Width of the feed-forward networks over ``hidden_dim``.

    Raises:
        ValueError: If ``num_heads`` does not divide ``hidden_dim``, or a size is below 1.
    """

    def __init__(
        self,
        hidden_dim: int = 64,
        num_layers: int = 2,
        num_heads: int = 4,
        max_horizon: int = 100,
        feedforward_factor: int = 2,
    ) -> None:
        super().__init__()
        check_count(
            1,
            hidden_dim=hidden_dim,
            num_layers=num_layers,
            num_heads=num_heads,
            max_horizon=max_horizon,
            feedforward_factor=feedforward_factor,
        )
        if hidden_dim % num_heads:
            raise ValueError(f"num_heads must divide hidden_dim {hidden_dim}, got {num_heads}.")
        self.hidden_dim, self.max_horizon = hidden_dim, max_horizon
        self.positions = nn.Parameter(0.02 * torch.randn(1, max_horizon, hidden_dim))
        self.blocks = nn.ModuleList(
            TransformerBlock(hidden_dim, num_heads, feedforward_factor * hidden_dim) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(hidden_dim)

    def start(self, horizon: int) -> KeyValueCache:
        """Begin a sequence of up to ``horizon`` tokens."""
        self.check_start(horizon)
        return KeyValueCache(horizon)

    def extend(self, carry: KeyValueCache, tokens: Tensor) -> tuple[KeyValueCache, Tensor]:
        """Map the next tokens ``(B, C, D)`` to their features ``(B, C, D)`` and add them to the cache."""
        length = carry.length + tokens.shape[1]
        check_room(carry, tokens.shape[1])
        tokens = tokens + self.positions[:, carry.length : length]
        layers = []
        for layer, block in enumerate(self.blocks):
            tokens, memory = block(tokens, carry, layer)
            layers.append(memory)
        return KeyValueCache(carry.horizon, length, tuple(layers)), self.norm(tokens)
