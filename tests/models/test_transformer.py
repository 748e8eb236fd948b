from __future__ import annotations

import pytest
import torch

from lit_awm.models import CausalTransformer


@pytest.mark.parametrize("with_gradient", [True, False])
def test_the_cache_is_one_block_of_memory_for_each_layer(with_gradient: bool) -> None:
    transformer = CausalTransformer(16, 2, 4, max_horizon=7)
    with torch.set_grad_enabled(with_gradient):
        cache, places = transformer.start(5), set[tuple[int, ...]]()
        for token in torch.randn(2, 5, 16).split(1, dim=1):
            cache, _ = transformer.extend(cache, token)
            places.add(tuple(memory.data_ptr() for layer in cache.layers for memory in layer))
    assert len(places) == 1
    assert cache.length == 5


@pytest.mark.parametrize("with_gradient", [True, False])
def test_more_tokens_than_it_was_started_for_are_refused(with_gradient: bool) -> None:
    transformer = CausalTransformer(16, 2, 4, max_horizon=7)
    with torch.set_grad_enabled(with_gradient):
        cache, _ = transformer.extend(transformer.start(2), torch.randn(2, 2, 16))
        with pytest.raises(ValueError, match="started for 2 steps must not be extended to 3"):
            transformer.extend(cache, torch.randn(2, 1, 16))


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"hidden_dim": 10, "num_heads": 4}, "num_heads must divide hidden_dim 10, got 4"),
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"max_horizon": 0}, "max_horizon must be at least 1, got 0"),
    ],
)
def test_bad_sizes_are_refused(sizes: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CausalTransformer(**sizes)
