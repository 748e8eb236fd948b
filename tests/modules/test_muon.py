from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.optim import Adam, Muon

from lit_awm.modules import MuonAdam, muon
from lit_awm.modules.muon import orthogonalize


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))


def train(model: nn.Module, *optimizers: torch.optim.Optimizer, steps: int = 5) -> None:
    data = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        model.zero_grad()
        (model(data) - data.sum(1, keepdim=True)).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()


def test_it_is_muon_on_hidden_matrices_and_adam_on_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal to the bit to torch's, once matrices are rounded as it rounds them."""
    monkeypatch.setattr(muon, "orthogonalize", lambda matrix: orthogonalize(matrix.bfloat16()))
    ours, theirs = make_model(), make_model()
    train(ours, MuonAdam(ours.parameters(), lr=0.02, adam_lr=0.003))
    hidden = theirs[2].weight
    others = [parameter for parameter in theirs.parameters() if parameter is not hidden]
    train(theirs, Muon([hidden], lr=0.02, weight_decay=0.0), Adam(others, lr=0.003))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("shape", [(32, 32), (48, 16), (16, 48)])
def test_singular_values_come_near_one_and_vectors_stay(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    # None negligible: five steps raise what is above a thousandth of the norm.
    matrix = left @ torch.diag(values.clamp(min=0.01 * matrix.norm())) @ right
    rotated = left.T @ orthogonalize(matrix) @ right.T
    assert torch.allclose(rotated, torch.diag(rotated.diagonal()), atol=1e-9)
    assert rotated.diagonal().min() > 0.65
    assert rotated.diagonal().max() < 1.25


def test_single_precision_is_kept() -> None:
    matrix = torch.randn(24, 40, generator=torch.Generator().manual_seed(0))
    single, double = orthogonalize(matrix), orthogonalize(matrix.double())
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), double, atol=1e-5)  # in bfloat16 it would be off by a hundredth


def test_a_matrix_of_zeros_stays() -> None:
    assert torch.equal(orthogonalize(torch.zeros(16, 16)), torch.zeros(16, 16))


def test_matrices_without_a_gradient_stay() -> None:
    model = make_model()
    optimizer = MuonAdam(model.parameters())
    before = model[2].weight.detach().clone()
    model[4].bias.sum().backward()
    optimizer.step()
    assert torch.equal(model[2].weight, before)


def test_a_restored_optimizer_goes_on_exactly() -> None:
    model = make_model()
    optimizer = MuonAdam(model.parameters())
    train(model, optimizer)
    copy = make_model()
    copy.load_state_dict(model.state_dict())
    restored = MuonAdam(copy.parameters())
    restored.load_state_dict(deepcopy(optimizer.state_dict()))
    train(model, optimizer)
    train(copy, restored)
    for a, b in zip(model.parameters(), copy.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_copy_goes_on_exactly() -> None:
    model = make_model()
    optimizer = MuonAdam(model.parameters())
    train(model, optimizer)
    copied_model, copied = deepcopy((model, optimizer))
    train(model, optimizer)
    train(copied_model, copied)
    for a, b in zip(model.parameters(), copied_model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_further_group_is_refused() -> None:
    with pytest.raises(ValueError, match="must have two groups"):
        MuonAdam(make_model().parameters()).add_param_group({"params": [nn.Parameter(torch.zeros(1))]})


def test_schedulers_reach_both_parts() -> None:
    model = make_model()
    optimizer = MuonAdam(model.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 0.0)
    before = [parameter.clone() for parameter in model.parameters()]
    train(model, optimizer)
    schedule.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("options", "words"), [({"lr": 0.0}, "positive, got 0.0"), ({"adam_lr": -1.0}, "positive, got 0.01 and -1")]
)
def test_bad_rates_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MuonAdam(make_model().parameters(), **options)


def test_a_model_without_hidden_matrices_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got 0 and 2. Use torch.optim.Adam"):
        MuonAdam(nn.Linear(3, 16).parameters())
