from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lit_awm.imagination import imagine
from lit_awm.models import (
    ActionsWorldModel,
    DeterministicPolicy,
    MarkovWorldModel,
    Policy,
    TanhNormalPolicy,
    UnrolledWorldModel,
)

HORIZON = 10


def policy_gradient(policy: Policy, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
    imagined = imagine(arguments[0], policy, *arguments[1:], **options)
    gradient = torch.autograd.grad(imagined.rewards.sum(1).mean(), list(policy.parameters()))
    return imagined.states.detach(), torch.cat([part.flatten() for part in gradient])


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_replay_has_the_states_and_the_gradient_of_sequential(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: Tensor, noise: float
) -> None:
    options: dict[str, Any] = {"action_noise": noise * torch.randn(4, HORIZON, 2, dtype=torch.float64)}
    sequential = policy_gradient(policy, world_model, initial_state, HORIZON, method="sequential", **options)
    replay = policy_gradient(policy, world_model, initial_state, HORIZON, method="replay", **options)
    assert sequential[1].norm() > 1e-3
    for ours, theirs in zip(replay, sequential, strict=True):
        assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()


def test_replay_equals_sequential_with_the_same_noise(world_model: ActionsWorldModel, initial_state: Tensor) -> None:
    policy = TanhNormalPolicy(3, 2, hidden_dim=8).double()
    policy.state_scaler.load_state_dict(world_model.state_scaler.state_dict())
    results = []
    for method in ("sequential", "replay"):
        torch.manual_seed(7)
        results.append(policy_gradient(policy, world_model, initial_state, HORIZON, method=method))
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()


def test_warm_passes_make_one_more_state_exact_each_and_end_at_replay(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: Tensor
) -> None:
    exact = imagine(world_model, policy, initial_state, HORIZON, method="sequential").states
    states = initial_state.unsqueeze(1).expand(-1, HORIZON + 1, -1) + 1.0
    for passes in range(1, HORIZON + 1):
        states = imagine(
            world_model, policy, initial_state, HORIZON, method="warm", previous_states=states
        ).states.detach()
        torch.testing.assert_close(states[:, : passes + 1], exact[:, : passes + 1], rtol=1e-10, atol=1e-10)
    warm = policy_gradient(policy, world_model, initial_state, HORIZON, method="warm", previous_states=states)
    replay = policy_gradient(policy, world_model, initial_state, HORIZON, method="replay")
    assert (warm[1] - replay[1]).abs().max() <= 1e-10 * replay[1].abs().max()


def test_warm_without_states_decodes(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: Tensor
) -> None:
    warm, replay = (
        policy_gradient(policy, world_model, initial_state, HORIZON, method=method) for method in ("warm", "replay")
    )
    assert torch.equal(warm[1], replay[1])


def test_no_gradient_passes_through_the_states_that_the_policy_reads_unless_asked(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: Tensor
) -> None:
    gradients = {
        share: policy_gradient(
            policy, world_model, initial_state, HORIZON, method="sequential", policy_input_gradient=share
        )[1]
        for share in (0.0, 0.5, 1.0)
    }
    assert not torch.allclose(gradients[0.0], gradients[1.0], rtol=1e-3)
    assert not torch.allclose(gradients[0.5], gradients[1.0], rtol=1e-3)

    def closed_loop_return(*parameters: Tensor) -> Tensor:
        names = [name for name, _ in policy.named_parameters()]
        original = {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}
        with torch.no_grad():
            for name, value in zip(names, parameters, strict=True):
                policy.get_parameter(name).copy_(value)
        value = imagine(world_model, policy, initial_state, HORIZON, method="sequential").rewards.sum(1).mean().detach()
        with torch.no_grad():
            for name, saved in original.items():
                policy.get_parameter(name).copy_(saved)
        return value

    parameters = [parameter.detach().clone() for parameter in policy.parameters()]
    direction = [torch.randn_like(parameter) for parameter in parameters]
    step = 1e-6
    forward, backward = (
        closed_loop_return(*(p + sign * step * d for p, d in zip(parameters, direction, strict=True)))
        for sign in (1, -1)
    )
    slope = (forward - backward) / (2 * step)
    expected = sum(
        (
            d.flatten() @ g
            for d, g in zip(direction, gradients[1.0].split([p.numel() for p in parameters]), strict=True)
        ),
        torch.zeros(()),
    )
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("horizon", [1, 2, 10, 50])
def test_an_actions_model_that_iterates_a_transition_has_the_markovian_gradient(
    initial_state: Tensor, horizon: int
) -> None:
    """The proposition of Ma et al. (2024): with a recurrent ``g`` nothing is gained over the Markovian model."""
    markov, policy = MarkovWorldModel(3, 2, 16).double(), DeterministicPolicy(3, 2, hidden_dim=8).double()
    initial = initial_state - torch.tensor([100.0, 0.0, -1.0])
    _, expected = policy_gradient(policy, markov, initial, horizon, method="sequential")
    _, got = policy_gradient(policy, UnrolledWorldModel(markov), initial, horizon, method="replay")
    assert (got - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "quick"}, "must be one of sequential, replay, warm, got 'quick'"),
        ({"method": "replay", "policy_input_gradient": 0.5}, "needs policy_input_gradient 0, got 0.5.*'sequential'"),
        ({"method": "sequential", "policy_input_gradient": 2.0}, "policy_input_gradient must be between 0 and 1"),
        ({"method": "replay", "horizon": 13}, "max_horizon 12, got 13"),
        ({"method": "replay", "horizon": 0}, "horizon must be at least 1, got 0"),
        ({"method": "replay", "previous_states": torch.zeros(4, 11, 3)}, "previous_states are for method 'warm'"),
        ({"method": "warm", "previous_states": torch.zeros(4, 5, 3)}, "at least 10 steps, got 5"),
        ({"method": "replay", "action_noise": torch.zeros(4, 9, 2)}, r"shape \(4, 10, 2\), got \(4, 9, 2\)"),
    ],
)
def test_what_cannot_be_served_is_refused(
    world_model: ActionsWorldModel,
    policy: DeterministicPolicy,
    initial_state: Tensor,
    options: dict[str, Any],
    words: str,
) -> None:
    with pytest.raises(ValueError, match=words):
        imagine(world_model, policy, initial_state, **({"horizon": HORIZON} | options))


def test_replay_is_refused_for_a_model_that_reads_later_states(initial_state: Tensor) -> None:
    policy = DeterministicPolicy(3, 2).double()
    with pytest.raises(ValueError, match="got MarkovWorldModel. Use 'sequential'"):
        imagine(MarkovWorldModel(3, 2).double(), policy, initial_state, 3, method="replay")


def test_warm_is_refused_for_a_stochastic_policy(world_model: ActionsWorldModel, initial_state: Tensor) -> None:
    with pytest.raises(ValueError, match="needs a deterministic policy, got TanhNormalPolicy.*'replay'"):
        imagine(world_model, TanhNormalPolicy(3, 2).double(), initial_state, 3, method="warm")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", ["sequential", "replay", "warm"])
def test_imagination_on_a_gpu_agrees_with_the_cpu(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: Tensor, method: str
) -> None:
    on_cpu = policy_gradient(policy, world_model, initial_state, HORIZON, method=method)
    on_gpu = policy_gradient(policy.cuda(), world_model.cuda(), initial_state.cuda(), HORIZON, method=method)
    for ours, theirs in zip(on_gpu, on_cpu, strict=True):
        assert (ours.cpu() - theirs).abs().max() <= 1e-9 * theirs.abs().max()
