"""What holds for every backbone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lit_awm.models import AttentionBackbone, Backbone, CausalTransformer, RecurrentBackbone, StateSpaceBackbone

BACKBONES: dict[str, Callable[[], Backbone]] = {
    "transformer": lambda: CausalTransformer(16, 3, 4, max_horizon=11),
    "attention": lambda: AttentionBackbone(16, max_horizon=11),
    "rnn": lambda: RecurrentBackbone(16, "rnn"),
    "gru": lambda: RecurrentBackbone(16, "gru", num_layers=2),
    "lstm": lambda: RecurrentBackbone(16, "lstm", num_layers=2),
    "state_space": lambda: StateSpaceBackbone(16, num_layers=2),
}
EVERY = pytest.mark.parametrize("name", BACKBONES)


def piece_by_piece(backbone: Backbone, tokens: Tensor, sizes: list[int]) -> Tensor:
    carry, pieces = backbone.start(tokens.shape[1]), []
    for part in tokens.split(sizes, dim=1):
        carry, features = backbone.extend(carry, part)
        pieces.append(features)
    return torch.cat(pieces, dim=1)


@EVERY
def test_a_feature_depends_on_every_token_up_to_its_own_and_on_no_later_one(name: str) -> None:
    backbone = BACKBONES[name]().double()
    tokens = torch.randn(2, 6, 16, dtype=torch.float64, requires_grad=True)
    features = backbone(tokens)
    weights = torch.randn(16, dtype=torch.float64)
    for t in range(6):
        (gradient,) = torch.autograd.grad((features[:, t] @ weights).sum(), tokens, retain_graph=True)
        assert gradient[:, : t + 1].ne(0).any(dim=-1).all()
        assert gradient[:, t + 1 :].eq(0).all()


@EVERY
@pytest.mark.parametrize("sizes", [[1] * 11, [4, 1, 6], [5, 6]])
@pytest.mark.parametrize("with_gradient", [True, False])
def test_piece_by_piece_equals_parallel(name: str, sizes: list[int], with_gradient: bool) -> None:
    backbone = BACKBONES[name]().double()
    tokens = torch.randn(2, 11, 16, dtype=torch.float64, requires_grad=with_gradient)
    with torch.set_grad_enabled(with_gradient):
        expected = backbone(tokens)
        got = piece_by_piece(backbone, tokens, sizes)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    if with_gradient:
        weights = torch.randn_like(expected)
        wanted = torch.autograd.grad((expected * weights).sum(), [tokens, *backbone.parameters()])
        gradients = torch.autograd.grad((got * weights).sum(), [tokens, *backbone.parameters()])
        for ours, theirs in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@EVERY
def test_a_gradient_of_some_pieces_is_right_and_can_be_taken_again(name: str) -> None:
    backbone = BACKBONES[name]().double()
    tokens = torch.randn(2, 11, 16, dtype=torch.float64, requires_grad=True)
    expected, got = backbone(tokens), piece_by_piece(backbone, tokens, [3, 1, 1, 4, 2])
    for last in (11, 4, 1, 11):
        gradients = [
            torch.autograd.grad(each[:, :last].sin().sum(), tokens, retain_graph=True)[0] for each in (got, expected)
        ]
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


@EVERY
def test_gradients_are_correct(name: str) -> None:
    tokens = torch.randn(1, 5, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(BACKBONES[name]().double(), tokens, fast_mode=True)


def test_the_linear_recurrence_is_a_sum_with_powers_of_its_factor() -> None:
    backbone = StateSpaceBackbone(8, num_layers=1).double()
    layer = backbone.layers[0]
    tokens = torch.randn(1, 6, 8, dtype=torch.float64)
    factor = torch.complex(-layer.log_rate.exp(), layer.angle).exp()
    assert factor.abs().max() < 1
    inputs = layer._input(tokens)
    state = sum(factor**distance * inputs[:, 5 - distance] for distance in range(6))
    torch.testing.assert_close(layer(None, tokens)[1][:, 5], layer._output(tokens[:, 5], state), rtol=1e-12, atol=1e-12)


def test_the_attention_backbone_is_softmax_attention() -> None:
    backbone = AttentionBackbone(4, max_horizon=3).double()
    tokens = torch.randn(1, 3, 4, dtype=torch.float64)
    query, key, value = backbone.query_key_value(tokens + backbone.positions).chunk(3, dim=-1)
    expected = (query[:, 2:] @ key.mT / 2).softmax(-1) @ value
    torch.testing.assert_close(backbone(tokens)[:, 2:], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RecurrentBackbone(8, "elman"), "cell must be one of rnn, gru, lstm, got 'elman'"),  # type: ignore[arg-type]
        (lambda: RecurrentBackbone(0), "hidden_dim must be at least 1, got 0"),
        (lambda: StateSpaceBackbone(8, num_layers=0), "num_layers must be at least 1, got 0"),
        (lambda: AttentionBackbone(8, max_horizon=0), "max_horizon must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(make: Callable[[], Backbone], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_the_gradient_of_a_memory_that_was_cut_off_can_be_asked_for() -> None:
    backbone = CausalTransformer(8, 1, 2, 4).double()
    tokens = torch.randn(2, 4, 8, dtype=torch.float64)
    carry, _ = backbone.extend(backbone.start(4), tokens[:, :2])
    keys, values = (memory.detach().requires_grad_() for memory in carry.layers[0])
    _, features = backbone.extend(carry._replace(layers=((keys, values),)), tokens[:, 2:])
    (grad_keys,) = torch.autograd.grad(features[..., 0].sum(), keys, retain_graph=True)
    features[..., 0].sum().backward()
    torch.testing.assert_close(keys.grad, grad_keys)
    assert grad_keys[..., :2].abs().sum() > 0


@pytest.mark.parametrize("name", ["transformer", "attention"])
def test_a_sequence_beyond_the_positions_is_refused(name: str) -> None:
    backbone = BACKBONES[name]()
    with pytest.raises(ValueError, match="horizon must be between 1 and the backbone's max_horizon 11, got 12"):
        backbone.start(12)
    carry, _ = backbone.extend(backbone.start(11), torch.zeros(1, 9, 16))
    with pytest.raises(ValueError, match="started for 11 steps must not be extended to 14"):
        backbone.extend(carry, torch.zeros(1, 5, 16))
