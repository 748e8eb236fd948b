"""Causal attention to all tokens so far, with memory for their keys and values that is reserved once.

Shape legend: ``B`` batch, ``K`` heads, ``H`` horizon, ``C`` new tokens, ``T`` tokens so far with the new ones, ``E``
size of a head.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class KeyValueCache(NamedTuple):
    """Keys and values of the tokens seen so far, for every layer.

    To extend a cache writes into its memory: of several extensions of the same cache only the last one may be used, or
    differentiated.

    Attributes:
        horizon: The most tokens that it can hold.
        length: Number of tokens in it.
        layers: For each layer the memory of keys and of values ``(B, K, H, E)``; empty before the first tokens.
    """

    horizon: int
    length: int = 0
    layers: tuple[tuple[Tensor, Tensor], ...] = ()


Memory = tuple[Tensor, Tensor]


def attend(query: Tensor, key: Tensor, value: Tensor, cache: KeyValueCache, layer: int) -> tuple[Tensor, Memory]:
    """Let new tokens attend to all before and to themselves, causally.

    Args:
        query: Queries ``(B, K, C, E)``.
        key: Keys ``(B, K, C, E)``.
        value: Values ``(B, K, C, E)``.
        cache: What is known of the tokens before.
        layer: Whose memory to use.

    Returns:
        What they attend to ``(B, K, C, E)``, and the memory of the layer with the new tokens in it.
    """
    if cache.layers:
        memory = cache.layers[layer]
    elif query.shape[2] == cache.horizon:  # all at once: nothing will have to be remembered
        return F.scaled_dot_product_attention(query, key, value, is_causal=True), (key, value)
    else:
        shape = (*key.shape[:2], cache.horizon, key.shape[3])
        memory = key.new_empty(shape), value.new_empty(shape)
    if torch.is_grad_enabled():
        attended, *links = _CachedAttention.apply(query, key, value, *memory, cache.length)  # type: ignore[no-untyped-call]
        return attended, (links[0], links[1])
    return _write_and_attend(query, key, value, memory, cache.length)[0], memory


def _write_and_attend(query: Tensor, key: Tensor, value: Tensor, memory: Memory, length: int) -> tuple[Tensor, Tensor]:
    """Return what is attended to, and the weights ``(B, K, C, T)``."""
    total = length + key.shape[2]
    for place, new in zip(memory, (key, value), strict=True):
        place[:, :, length:total] = new
    keys, values = (place[:, :, :total] for place in memory)
    weights = _weights(query, keys, length)
    return weights @ values, weights


def _weights(query: Tensor, keys: Tensor, length: int) -> Tensor:
    scores = (query * query.shape[-1] ** -0.5) @ keys.mT
    if query.shape[2] > 1:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu_(length + 1)
        scores = scores.masked_fill_(later, -torch.inf)
    return scores.softmax(dim=-1)


class _CachedAttention(torch.autograd.Function):
    """Attention whose graph holds a memory once, however often it is extended.

    The memory is an input and an output. Its gradient is handed from extension to extension, the last one first; each
    adds its share in place, and takes from it the gradient of the tokens that it had added.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, length: int) -> Any:
        attended, _ = _write_and_attend(query, key, value, (keys, values), length)
        links = keys.detach(), values.detach()
        ctx.save_for_backward(query, attended)
        ctx.memory, ctx.length = (keys.detach(), values.detach()), length  # not saved: it is written to later on
        ctx.set_materialize_grads(False)
        return attended, *links

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, grad_keys: Tensor | None, grad_values: Tensor | None) -> Any:
        query, attended = ctx.saved_tensors
        length, total = ctx.length, ctx.length + query.shape[2]
        if grad_keys is None or grad_values is None:
            grad_keys, grad_values = (torch.zeros_like(place) for place in ctx.memory)
        if grad is not None:
            keys, values = (place[:, :, :total] for place in ctx.memory)
            weights = _weights(query, keys, length)
            grad_values[:, :, :total] += weights.mT @ grad
            inner = (grad * attended).sum(-1, keepdim=True)
            grad_scores = (grad @ values.mT).sub_(inner).mul_(weights).mul_(query.shape[-1] ** -0.5)
            grad_keys[:, :, :total] += grad_scores.mT @ query
            grad_query = grad_scores @ keys
        else:
            grad_query = torch.zeros_like(query)
        new = slice(length, total)
        return grad_query, grad_keys[:, :, new].clone(), grad_values[:, :, new].clone(), grad_keys, grad_values, None
