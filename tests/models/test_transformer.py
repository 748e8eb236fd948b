from __future__ import annotations

import pytest
import torch

from lit_awm.models import CausalTransformer


def test_without_gradient_the_cache_is_one_block_of_memory() -> None:
    transformer = CausalTransformer(16, 1, 4, max_horizon=7)
    with torch.no_grad():
        cache = transformer.start(5)
        seen = [cache.append(0, torch.randn(2, 3, 4, 1, 4)).data_ptr()]
        cache.length = 1
        seen.append(cache.append(0, torch.randn(2, 3, 4, 1, 4)).data_ptr())
    assert seen[0] == seen[1]


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
