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

    Extending a cache writes into its memory: if it is extended several times, only the last extension may be used or
    differentiated.

    Attributes:
        horizon: The most tokens that it can hold.
        length: Number of tokens in it.
        layers: For each layer the memory of keys ``(B, K, E, H)`` and of values ``(B, K, H, E)``, each as products with
            one query read it fastest; empty before the first tokens.
    """

    horizon: int
    length: int = 0
    layers: tuple[tuple[Tensor, Tensor], ...] = ()


Memory = tuple[Tensor, Tensor]


def check_room(cache: KeyValueCache, count: int) -> None:
    """Reject more tokens than a cache was made for.

    Raises:
        ValueError: If there is no room for ``count`` more of them.
    """
    if cache.length + count > cache.horizon:
        raise ValueError(
            f"a sequence that was started for {cache.horizon} steps must not be extended to {cache.length + count}. "
            "Start it for as many as there will be."
        )


def attend(query: Tensor, key: Tensor, value: Tensor, cache: KeyValueCache, layer: int) -> tuple[Tensor, Memory]:
    """Let new tokens attend to all before and to themselves, causally.

    Args:
        query: Queries ``(B, K, C, E)``.
        key: Keys ``(B, K, C, E)``.
        value: Values ``(B, K, C, E)``.
        cache: What is known of the tokens before.
        layer: Whose memory to use.

    Raises:
        ValueError: If there are more tokens than the cache was made for.

    Returns:
        What they attend to ``(B, K, C, E)``, and the memory of the layer with the new tokens in it.
    """
    check_room(cache, query.shape[2])
    if cache.layers:
        keys, values = cache.layers[layer]
        memory = _no_leaf(keys), _no_leaf(values)
    elif query.shape[2] == cache.horizon:  # all at once: nothing will have to be remembered
        return F.scaled_dot_product_attention(query, key, value, is_causal=True), (key.mT, value)
    else:
        batch, heads, _, size = key.shape
        memory = key.new_empty(batch, heads, size, cache.horizon), key.new_empty(batch, heads, cache.horizon, size)
    if torch.is_grad_enabled():
        attended, *links = _CachedAttention.apply(query, key, value, *memory, cache.length)  # type: ignore[no-untyped-call]
        return attended, (links[0], links[1])
    return _write_and_attend(query, key, value, memory, cache.length), memory


def _no_leaf(tensor: Tensor) -> Tensor:
    """Return the same memory as no leaf, since of a leaf it cannot be known whether its gradient is asked for."""
    return tensor.view_as(tensor) if tensor.requires_grad and tensor.is_leaf else tensor


def _write_and_attend(query: Tensor, key: Tensor, value: Tensor, memory: Memory, length: int) -> Tensor:
    keys, values = memory
    total = length + key.shape[2]
    keys[..., length:total] = key.mT
    values[:, :, length:total] = value
    return _weights(query, keys[..., :total], length) @ values[:, :, :total]


def _weights(query: Tensor, keys: Tensor, length: int) -> Tensor:
    """Return the weights ``(B, K, C, T)`` of queries that follow ``length`` tokens."""
    scores = (query * query.shape[-1] ** -0.5) @ keys
    if query.shape[2] > 1:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu_(length + 1)
        scores = scores.masked_fill_(later, -torch.inf)
    return scores.softmax(dim=-1)


def _add_product(target: Tensor, left: Tensor, right: Tensor) -> None:
    if left.shape[-1] == 1:  # an outer product, for which no memory is needed
        target.addcmul_(left, right)
    else:
        target += left @ right


class _CachedAttention(torch.autograd.Function):
    """Attention whose graph holds a memory once, however often it is extended.

    The memory is an input and an output. Its gradient is handed from extension to extension, the last one first; each
    adds its share in place, and takes from it the gradient of the tokens that it had added. Where nobody asks for the
    gradient of the tokens before, it is not computed.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, length: int) -> Any:
        attended = _write_and_attend(query, key, value, (keys, values), length)
        links = keys.detach(), values.detach()
        ctx.save_for_backward(query, attended)
        ctx.memory, ctx.length = (keys.detach(), values.detach()), length  # not saved: it is written to later on
        ctx.set_materialize_grads(False)
        return attended, *links

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, grad_keys: Tensor | None, grad_values: Tensor | None) -> Any:
        query, attended = ctx.saved_tensors
        length, count = ctx.length, query.shape[2]
        total = length + count
        is_asked = any(
            node is not None and torch._C._will_engine_execute_node(node) for node, _ in ctx.next_functions[3:5]
        )
        begin = 0 if is_asked else length  # of the tokens whose gradients are needed
        if grad_keys is None or grad_values is None:
            keys, values = ctx.memory
            size = keys.shape[-1] if is_asked else count
            grad_keys = keys.new_zeros(*keys.shape[:-1], size)
            grad_values = values.new_zeros(*values.shape[:2], size, values.shape[3])
            added_keys, added_values = grad_keys[..., : total - begin], grad_values[:, :, : total - begin]
        else:
            added_keys, added_values = grad_keys[..., begin:total], grad_values[:, :, begin:total]
        if grad is not None:
            keys, values = ctx.memory[0][..., :total], ctx.memory[1][:, :, :total]
            weights = _weights(query, keys, length)
            _add_product(added_values, weights[..., begin:].mT, grad)
            inner = (grad * attended).sum(-1, keepdim=True)
            grad_scores = (grad @ values.mT).sub_(inner).mul_(weights).mul_(query.shape[-1] ** -0.5)
            _add_product(added_keys, query.mT, grad_scores[..., begin:])
            grad_query = grad_scores @ keys.mT
        else:
            grad_query = torch.zeros_like(query)
        grad_key, grad_value = added_keys[..., -count:].mT.clone(), added_values[:, :, -count:].clone()
        earlier = (grad_keys, grad_values) if is_asked else (None, None)
        return grad_query, grad_key, grad_value, *earlier, None
