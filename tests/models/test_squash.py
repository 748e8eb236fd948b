from __future__ import annotations

import pytest
import torch

from lit_awm.models import DeterministicPolicy
from lit_awm.models.squash import Squash

LEAST = 0.05


def slopes(values: torch.Tensor, gradient: float, least: float = LEAST) -> torch.Tensor:
    values = values.clone().requires_grad_()
    (found,) = torch.autograd.grad(Squash.apply(values, least), values, torch.full_like(values, gradient))
    return found / gradient


def test_it_is_tanh_with_its_derivative_where_actions_are_not_saturated() -> None:
    values = torch.linspace(-2, 2, 41, dtype=torch.float64)
    assert torch.equal(Squash.apply(values, LEAST), values.tanh())
    for gradient in (1.0, -3.0):
        torch.testing.assert_close(slopes(values, gradient), 1 - values.tanh().square())


@pytest.mark.parametrize("end", [-8.0, 8.0])
def test_at_the_end_what_leads_back_has_a_derivative_and_what_leads_further_out_has_that_of_tanh(end: float) -> None:
    value = torch.tensor([end], dtype=torch.float64)
    back, out = (slopes(value, sign * end).item() for sign in (1, -1))  # descent is against the gradient
    assert back == LEAST
    assert out == pytest.approx(1 - torch.tensor(end, dtype=torch.float64).tanh().item() ** 2)


@pytest.mark.parametrize("saturated", [-3.0, 3.0])
def test_before_the_end_both_directions_count_alike(saturated: float) -> None:
    value = torch.tensor([saturated], dtype=torch.float64)
    assert slopes(value, 1.0).item() == slopes(value, -1.0).item() == LEAST


def saturated(least_slope: float) -> DeterministicPolicy:
    policy = DeterministicPolicy(1, 1, hidden_dim=4, least_slope=least_slope)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.fill_(2.0)
    return policy


def test_a_policy_that_does_all_comes_back_in_training_and_is_exact_elsewhere() -> None:
    state = torch.ones(1, 1)
    norms = {}
    for least, mode in ((LEAST, True), (LEAST, False), (0.0, True)):
        policy = saturated(least).train(mode)
        action = policy(state)
        assert action.item() == 1
        action.sum().backward()
        norms[least, mode] = sum(parameter.grad.norm().item() for parameter in policy.parameters())
    assert norms[LEAST, True] > 1
    assert norms[LEAST, False] == norms[0.0, True] == 0


@pytest.mark.parametrize("least_slope", [-0.1, 1.0])
def test_the_least_slope_is_a_share(least_slope: float) -> None:
    with pytest.raises(ValueError, match=f"least_slope must be at least 0 and below 1, got {least_slope}"):
        DeterministicPolicy(1, 1, least_slope=least_slope)
