from __future__ import annotations

import pytest
import torch

from lit_awm.models import DeterministicPolicy, Policy, TanhNormalPolicy


@pytest.mark.parametrize("policy_class", [DeterministicPolicy, TanhNormalPolicy])
@pytest.mark.parametrize("num_frequencies", [0, 3])
def test_actions_lie_in_the_range_whatever_the_units(policy_class: type[Policy], num_frequencies: int) -> None:
    policy = policy_class(4, 2, num_frequencies=num_frequencies)
    policy.state_scaler.fit(1e6 * torch.randn(100, 4))
    action = policy.sample(1e6 * torch.randn(7, 5, 4), torch.randn(7, 5, 2))
    assert action.shape == (7, 5, 2)
    assert action.abs().max() <= 1


def test_a_fresh_policy_acts_near_the_middle() -> None:
    assert DeterministicPolicy(4, 2)(torch.randn(100, 4)).abs().max() < 0.1


def test_noise_decides_a_stochastic_action_and_is_differentiated_through() -> None:
    policy = TanhNormalPolicy(4, 2, initial_deviation=0.5).double()
    state, noise = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    assert torch.equal(policy.sample(state, noise), policy.sample(state, noise))
    assert not torch.equal(policy.sample(state, noise), policy.sample(state))
    assert torch.autograd.gradcheck(lambda s: policy.sample(s, noise), state.requires_grad_())


def test_samples_follow_the_distribution_that_forward_returns() -> None:
    policy = TanhNormalPolicy(4, 2, initial_deviation=0.5).double()
    torch.nn.init.normal_(policy.network.layers[-1].weight, std=0.3)
    state = torch.randn(4, dtype=torch.float64).expand(20_000, 4)
    noise = torch.randn(20_000, 2, dtype=torch.float64)
    ours, theirs = policy.sample(state, noise), policy(state).rsample()
    torch.testing.assert_close(ours.mean(0), theirs.mean(0), rtol=0, atol=0.02)
    torch.testing.assert_close(ours.std(0), theirs.std(0), rtol=0.03, atol=0)
    assert policy(state).log_prob(ours).mean().isfinite()
