"""A causal transformer with a parallel and an incremental form.

Shape legend: ``B`` batch, ``H`` horizon, ``D`` hidden size, ``K`` heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_awm.checks import check_at_least
from lit_awm.models.backbone import Backbone


class KeyValueCache:
    """Keys and values of the tokens seen so far, for every layer.

    Without gradients they are written in place into memory reserved for ``horizon`` tokens. With gradients they are
    concatenated, since what autograd has saved must not change.
    """

    def __init__(self, horizon: int, num_layers: int) -> None:
        self.horizon = horizon
        self.length = 0
        self.in_place = not torch.is_grad_enabled()
        self._memory: list[Tensor | None] = [None] * num_layers

    def append(self, layer: int, key_value: Tensor) -> Tensor:
        """Add one token's ``(2, B, K, 1, D / K)`` to a layer and return all of its tokens so far."""
        memory = self._memory[layer]
        if not self.in_place:
            memory = key_value if memory is None else torch.cat([memory, key_value], dim=3)
            self._memory[layer] = memory
            return memory
        if memory is None:
            shape = list(key_value.shape)
            shape[3] = self.horizon
            memory = self._memory[layer] = key_value.new_empty(shape)
        memory[:, :, :, self.length : self.length + 1] = key_value
        return memory[:, :, :, : self.length + 1]


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

    def forward(self, tokens: Tensor, cache: KeyValueCache | None = None, layer: int = 0) -> Tensor:
        """Map ``(B, H, D)`` to ``(B, H, D)``; with a cache, ``H`` is 1 and attends to all tokens before."""
        batch, length, width = tokens.shape
        heads = self.query_key_value(self.attention_norm(tokens))
        heads = heads.view(batch, length, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
        query, key_value = heads[0], heads[1:]
        if cache is not None:
            key_value = cache.append(layer, key_value)
        attended = F.scaled_dot_product_attention(query, key_value[0], key_value[1], is_causal=cache is None)
        tokens = tokens + self.attention_out(attended.transpose(1, 2).reshape(batch, length, width))
        return tokens + self.feedforward(tokens)


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
        check_at_least(
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

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(B, H, D)`` to ``(B, H, D)`` in parallel."""
        tokens = tokens + self.positions[:, : tokens.shape[1]]
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def start(self, horizon: int) -> KeyValueCache:
        """Begin a sequence of up to ``horizon`` tokens."""
        return KeyValueCache(horizon, len(self.blocks))

    def step(self, carry: KeyValueCache, token: Tensor) -> tuple[KeyValueCache, Tensor]:
        """Map the next token ``(B, D)`` to its features ``(B, D)`` and add it to the cache."""
        token = (token + self.positions[:, carry.length]).unsqueeze(1)
        for layer, block in enumerate(self.blocks):
            token = block(token, carry, layer)
        carry.length += 1
        return carry, self.norm(token.squeeze(1))
