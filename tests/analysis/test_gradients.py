"""On a linear system every gradient has a closed form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from lit_awm.analysis import Gradients, PolicyCopies, measure_gradients
from lit_awm.models import (
    ActionsWorldModel,
    CausalTransformer,
    DeterministicPolicy,
    MarkovWorldModel,
    Policy,
    SimulatorWorldModel,
    TanhNormalPolicy,
    WorldModel,
)
from lit_awm.modules import WorldModelModule

A = torch.tensor([[1.02, 0.3], [-0.1, 0.95]], dtype=torch.float64)
B = torch.tensor([[0.2], [0.5]], dtype=torch.float64)
C = torch.tensor([1.0, -0.7], dtype=torch.float64)
HORIZONS = [1, 3, 12]


class LinearPolicy(Policy):
    """``a = k s + b``."""

    is_stochastic = False

    def __init__(self) -> None:
        super().__init__(2, 1)
        self.linear = nn.Linear(2, 1)

    def sample(self, state: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.linear(state)


def step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    next_state = state @ A.T + action @ B.T
    return next_state, next_state @ C


def exact_markov() -> MarkovWorldModel:
    model = MarkovWorldModel(2, 1, num_layers=0, predicts="state", reward_fn=lambda s, a, n: n @ C).double()
    with torch.no_grad():
        model.networks[0][0].weight.copy_(torch.cat([A, B], dim=1))
        model.networks[0][0].bias.zero_()
    return model


MODELS = {"simulator": lambda: SimulatorWorldModel(2, 1, step), "markov": exact_markov}


@pytest.fixture
def linear_policy() -> LinearPolicy:
    return LinearPolicy().double()


@pytest.fixture
def states() -> Tensor:
    return torch.randn(5, 2, dtype=torch.float64)


def closed_form(policy: LinearPolicy, start: Tensor, horizon: int, share: float) -> tuple[Tensor, Tensor]:
    """Return dJ/d(k, b) and dJ/da of one initial state, by the adjoint recursion in matrices."""
    weight, bias = policy.linear.weight.detach(), policy.linear.bias.detach()
    states = [start]
    for _ in range(horizon):
        states.append(A @ states[-1] + B @ (weight @ states[-1] + bias))
    by_actions, costate = torch.zeros(horizon, 1, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    by_weight, by_bias = torch.zeros_like(weight), torch.zeros_like(bias)
    for k in reversed(range(horizon)):
        costate = costate + C  # what the next state is worth
        by_actions[k] = B.T @ costate
        by_weight += by_actions[k].unsqueeze(1) * states[k]
        by_bias += by_actions[k]
        costate = (A + share * B @ weight).T @ costate
    return torch.cat([by_weight.flatten(), by_bias]), by_actions


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_gradients_of_a_linear_system_have_their_closed_form(
    model: str, share: float, linear_policy: LinearPolicy, states: Tensor
) -> None:
    world_model, scale = MODELS[model](), torch.tensor([2.0, 0.5], dtype=torch.float64)
    measured = measure_gradients(
        world_model, linear_policy, states, HORIZONS, policy_input_gradient=share, state_scale=scale
    )
    for horizon, gradients in zip(HORIZONS, measured, strict=True):
        expected = [closed_form(linear_policy, start, horizon, share) for start in states]
        by_policy, by_actions = (torch.stack(part) for part in zip(*expected, strict=True))
        torch.testing.assert_close(gradients.policy, by_policy, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(gradients.actions, by_actions, rtol=1e-8, atol=1e-8)
        closed_loop = A + share * B @ linear_policy.linear.weight.detach()
        jacobian = torch.linalg.matrix_power(closed_loop, horizon - 1) @ B / scale.unsqueeze(1)
        assert gradients.state is not None
        torch.testing.assert_close(gradients.state, jacobian.norm().expand(5), rtol=1e-8, atol=1e-8)
        mean = by_policy.mean(0)
        variance = (by_policy - mean).square().sum() / 4
        assert gradients.norm == pytest.approx(mean.norm().item(), rel=1e-8)
        assert gradients.deviation == pytest.approx(variance.sqrt().item(), rel=1e-8)
        assert gradients.signal_to_noise == pytest.approx((mean.norm() / variance.sqrt()).item(), rel=1e-8)
        by_distance = by_actions.square().sum(-1).mean(0).sqrt().flip(0)
        torch.testing.assert_close(gradients.by_distance(), by_distance, rtol=1e-8, atol=1e-8)


def test_an_exact_model_has_fidelity_one_and_a_wrong_one_has_not(linear_policy: LinearPolicy, states: Tensor) -> None:
    model = MarkovWorldModel(2, 1, num_layers=0, reward_fn=lambda s, a, n: n @ C).double()
    observed, actions = torch.randn(8, 10, 2, dtype=torch.float64), torch.rand(8, 10, 1, dtype=torch.float64)
    following = {"observation": step(observed, actions)[0], "reward": torch.zeros(8, 10, 1)}
    data = TensorDict({"observation": observed, "action": actions, "next": following}, batch_size=[8, 10])
    module = WorldModelModule(model)
    module.fit_statistics(data)
    truth = measure_gradients(SimulatorWorldModel(2, 1, step), linear_policy, states, HORIZONS)
    cosine, ratio = measure_gradients(model, linear_policy, states, HORIZONS)[-1].fidelity(truth[-1])
    assert abs(cosine - 1) > 1e-3 or abs(ratio - 1) > 1e-3  # not fitted yet
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=500, tolerance_grad=1e-14, tolerance_change=1e-16)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = module.loss(data)
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    for fitted, true in zip(measure_gradients(model, linear_policy, states, HORIZONS), truth, strict=True):
        assert fitted.fidelity(true) == pytest.approx((1.0, 1.0), abs=1e-6)


def test_the_reward_of_each_horizon_may_be_its_own(linear_policy: LinearPolicy, states: Tensor) -> None:
    model = SimulatorWorldModel(2, 1, step)
    doubled = {h: lambda s, a, n, h=h: h * n @ C for h in HORIZONS}
    plain, scaled = (
        measure_gradients(model, linear_policy, states, HORIZONS, reward_fns=rewards) for rewards in (None, doubled)
    )
    for horizon, ours, theirs in zip(HORIZONS, scaled, plain, strict=True):
        torch.testing.assert_close(ours.policy, horizon * theirs.policy)
        torch.testing.assert_close(ours.actions, horizon * theirs.actions)


@pytest.mark.parametrize("make_policy", [DeterministicPolicy, TanhNormalPolicy])
@pytest.mark.parametrize("parallel", [False, True])
def test_gradients_are_those_of_one_initial_state_at_a_time(make_policy: Any, parallel: bool, states: Tensor) -> None:
    policy = make_policy(2, 1, 8).double()
    model: WorldModel = MarkovWorldModel(2, 1).double()
    if parallel:
        model = ActionsWorldModel(2, 1, CausalTransformer(16, 1, 2, 6)).double()
    noise = torch.randn(5, 6, 1, dtype=torch.float64)
    torch.manual_seed(3)
    together = measure_gradients(model, policy, states, [6], action_noise=noise)[0]
    torch.manual_seed(3)
    sampled = torch.empty(5, 6, 1, dtype=torch.float64).normal_() if policy.is_stochastic else None
    for i, start in enumerate(states):
        carry, state, total = model.start(start[None], 6), start[None], torch.zeros(())
        for t in range(6):
            given = None if sampled is None else sampled[i : i + 1, t]
            carry, state, reward = model.step(carry, policy.sample(state.detach(), given) + noise[i : i + 1, t])
            total = total + reward.sum()
        gradient = torch.autograd.grad(total, list(policy.parameters()))
        expected = torch.cat([part.flatten() for part in gradient])
        torch.testing.assert_close(together.policy[i], expected, rtol=1e-9, atol=1e-12)


def test_one_initial_state_has_no_variance(linear_policy: LinearPolicy, states: Tensor) -> None:
    (gradients,) = measure_gradients(exact_markov(), linear_policy, states[:1], [4])
    assert gradients.deviation is None
    assert gradients.signal_to_noise is None


def test_fidelity_to_a_gradient_of_zero_is_not_a_number() -> None:
    some = Gradients(1, torch.zeros(2), torch.ones(2, 3), torch.ones(2, 1, 1), None)
    none = some._replace(policy=torch.zeros(2, 3))
    assert all(math.isnan(value) for value in some.fidelity(none))
    assert all(math.isnan(value) for value in none.fidelity(some))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_initial_states_have_no_signal_to_noise_whatever_the_rounding(dtype: torch.dtype) -> None:
    policy, model = DeterministicPolicy(2, 1, 8).to(dtype), MarkovWorldModel(2, 1).to(dtype)
    (gradients,) = measure_gradients(model, policy, torch.ones(7, 2, dtype=dtype), [20])
    assert gradients.signal_to_noise is None
    nearly = torch.ones(7, 2, dtype=dtype) + 1e-2 * torch.arange(7).to(dtype).unsqueeze(1)
    (gradients,) = measure_gradients(model, policy, nearly, [20])
    assert gradients.signal_to_noise is not None


def test_copies_act_each_with_its_own_parameters(linear_policy: LinearPolicy, states: Tensor) -> None:
    copies = PolicyCopies(linear_policy, 5)
    torch.testing.assert_close(copies.sample(states), linear_policy.sample(states))
    with torch.no_grad():
        copies.weights["linear.bias"] += torch.arange(5, dtype=torch.float64).unsqueeze(1)
    torch.testing.assert_close(
        copies.sample(states), linear_policy.sample(states) + torch.arange(5, dtype=torch.float64).unsqueeze(1)
    )
    assert not list(copies.parameters())


@pytest.mark.parametrize(
    ("horizons", "words"), [([], "at least one horizon, got none"), ([7], "max_horizon 6, got 7"), ([0], "got 0")]
)
def test_bad_horizons_are_refused(horizons: list[int], words: str, states: Tensor) -> None:
    model = ActionsWorldModel(2, 1, CausalTransformer(16, 1, 2, 6)).double()
    with pytest.raises(ValueError, match=words):
        measure_gradients(model, DeterministicPolicy(2, 1).double(), states, horizons)
