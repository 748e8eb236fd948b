from __future__ import annotations

import pytest
import torch

from lit_awm.models import CausalTransformer


def test_a_feature_depends_on_every_token_up_to_its_own_and_on_no_later_one() -> None:
    transformer = CausalTransformer(16, 2, 2, max_horizon=6)
    tokens = torch.randn(2, 6, 16, requires_grad=True)
    features = transformer(tokens)
    for t in range(6):
        (gradient,) = torch.autograd.grad(features[:, t].square().sum(), tokens, retain_graph=True)
        assert gradient[:, : t + 1].ne(0).any(dim=-1).all()
        assert gradient[:, t + 1 :].eq(0).all()


@pytest.mark.parametrize("with_gradient", [True, False])
def test_token_by_token_equals_parallel(with_gradient: bool) -> None:
    transformer = CausalTransformer(16, 3, 4, max_horizon=7).double()
    tokens = torch.randn(2, 7, 16, dtype=torch.float64)
    with torch.set_grad_enabled(with_gradient):
        cache = transformer.start(7)
        steps = [transformer.step(cache, token) for token in tokens.unbind(1)]
    torch.testing.assert_close(torch.stack(steps, 1), transformer(tokens), rtol=1e-10, atol=1e-10)


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
