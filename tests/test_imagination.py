from __future__ import annotations

import math
import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_awm.costates import CostateIteration
from lit_awm.imagination import imagine
from lit_awm.models import (
    ActionsWorldModel,
    AttentionBackbone,
    Backbone,
    CausalTransformer,
    DeterministicPolicy,
    MarkovWorldModel,
    Policy,
    RecurrentBackbone,
    StateSpaceBackbone,
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


@pytest.mark.parametrize(
    ("method", "share"), [("sequential", 0.0), ("sequential", 1.0), ("replay", 0.0), ("warm", 0.0)]
)
def test_saving_memory_leaves_the_gradient_as_it_is(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: Tensor, method: Any, share: float
) -> None:
    options: dict[str, Any] = {"method": method, "policy_input_gradient": share}
    plain, saving = (
        policy_gradient(policy, world_model, initial_state, HORIZON, checkpoint=checkpoint, **options)
        for checkpoint in (False, True)
    )
    for ours, theirs in zip(saving, plain, strict=True):
        assert (ours - theirs).abs().max() <= 1e-12 * theirs.abs().max()


CLOSED_LOOP = pytest.mark.parametrize("window", [None, 1, 3, 10])


@CLOSED_LOOP
@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("kind", [CausalTransformer, AttentionBackbone, RecurrentBackbone, StateSpaceBackbone])
def test_replay_with_costates_has_the_closed_loop_gradient_of_sequential(
    policy: DeterministicPolicy, initial_state: Tensor, kind: type[Backbone], share: float, window: int | None
) -> None:
    model = ActionsWorldModel(3, 2, kind(16), clock_step=0.2).double()
    model.state_scaler.load_state_dict(policy.state_scaler.state_dict())
    initial, weights = initial_state.clone().requires_grad_(), torch.randn(4, HORIZON, 3, dtype=torch.float64)
    noise = 0.1 * torch.randn(4, HORIZON, 2, dtype=torch.float64)

    def gradients(method: Any, **options: Any) -> list[Tensor]:
        sink = torch.zeros(4, HORIZON, 2, dtype=torch.float64)
        same: dict[str, Any] = {"policy_input_gradient": share, "action_noise": noise, "action_gradient": sink}
        imagined = imagine(model, policy, initial, HORIZON, method=method, **same, **options)
        value = (imagined.states[:, 1:] * weights).sum() + imagined.rewards.sum() + imagined.actions.square().sum()
        parameters = [initial, *policy.parameters(), *model.parameters()]
        found = torch.autograd.grad(value, parameters, allow_unused=True)
        return [sink, *(gradient for gradient in found if gradient is not None)]

    expected = gradients("sequential")
    got = gradients("replay", costates=CostateIteration(window))
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()


@CLOSED_LOOP
def test_closed_loop_gradients_reach_every_leaf_once(
    policy: DeterministicPolicy, initial_state: Tensor, window: int | None
) -> None:
    price = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)  # of no module
    shared = [layer for layer in policy.modules() if isinstance(layer, nn.Linear)][-1].bias
    model = ActionsWorldModel(
        3, 2, RecurrentBackbone(8), reward_fn=lambda s, a, n: price * n[..., 0] + (shared * a).sum(-1)
    )
    model.double().requires_grad_(False)
    noise = (0.1 * torch.randn(4, HORIZON, 2, dtype=torch.float64)).requires_grad_()
    gradients = []
    for options in ({"method": "sequential"}, {"method": "replay", "costates": CostateIteration(window)}):
        given: dict[str, Any] = {"policy_input_gradient": 1.0, "action_noise": noise, **options}
        value = imagine(model, policy, initial_state, HORIZON, **given).rewards.sum()
        gradients.append(torch.autograd.grad(value, [price, noise, *policy.parameters()]))
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()


class Remembering(ActionsWorldModel):
    """Carries the states that it predicts, and pays for the one before."""

    def start(self, state: Tensor, horizon: int) -> Any:
        return super().start(state, horizon), state.unsqueeze(1)

    def extend(self, carry: Any, actions: Tensor) -> Any:
        inner, states, rewards = super().extend(carry[0], actions)
        before = torch.cat([carry[1][:, -1:], states[:, :-1]], dim=1)
        return (inner, states), states, rewards + before[..., 0].square()


@CLOSED_LOOP
def test_what_is_predicted_may_be_carried_too(
    policy: DeterministicPolicy, initial_state: Tensor, window: int | None
) -> None:
    model = Remembering(3, 2, RecurrentBackbone(8)).double()
    model.state_scaler.load_state_dict(policy.state_scaler.state_dict())
    options: dict[str, Any] = {"policy_input_gradient": 1.0}
    _, expected = policy_gradient(policy, model, initial_state, HORIZON, method="sequential", **options)
    solver = CostateIteration(window)
    _, got = policy_gradient(policy, model, initial_state, HORIZON, method="replay", costates=solver, **options)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@CLOSED_LOOP
def test_costates_are_exact_from_whatever_they_start(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: Tensor, window: int | None
) -> None:
    _, expected = policy_gradient(policy, world_model, initial_state, HORIZON, policy_input_gradient=1.0)
    solver = CostateIteration(window)
    solver.costates = 1e9 * torch.randn(4, HORIZON, 3, dtype=torch.float64)
    options: dict[str, Any] = {"policy_input_gradient": 1.0, "costates": solver}
    _, got = policy_gradient(policy, world_model, initial_state, HORIZON, **options)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_nothing_is_solved_for(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: Tensor, mode: Any
) -> None:
    solver = CostateIteration()
    expected = imagine(world_model, policy, initial_state, HORIZON, method="sequential")
    with mode():
        imagined = imagine(world_model, policy, initial_state, HORIZON, policy_input_gradient=1.0, costates=solver)
    torch.testing.assert_close(imagined.states, expected.states, rtol=1e-10, atol=1e-10)
    assert solver.costates is None


@pytest.mark.parametrize("horizon", [1, 7, 10, 12])
def test_the_default_solver_is_exact_where_the_loop_expands(initial_state: Tensor, horizon: int) -> None:
    transition, policy = MarkovWorldModel(3, 2, num_layers=0).double(), DeterministicPolicy(3, 2, hidden_dim=8).double()
    for parameter in [*policy.parameters(), *transition.parameters()]:
        torch.nn.init.normal_(parameter, std=0.7)
    model, initial = UnrolledWorldModel(transition), initial_state - torch.tensor([100.0, 0.0, -1.0])
    gradients = [
        policy_gradient(policy, model, initial, horizon, method=method, policy_input_gradient=1.0)[1]
        for method in ("sequential", "replay")
    ]
    assert (gradients[1] - gradients[0]).abs().max() <= 1e-10 * gradients[0].abs().max()


class Blind(DeterministicPolicy):
    """Acts without looking."""

    def sample(self, state: Tensor, noise: Tensor | None = None) -> Tensor:
        return super().sample(torch.zeros_like(state))


@pytest.mark.parametrize("kind", [DeterministicPolicy, Blind])
@pytest.mark.parametrize(
    "reward_fn", [lambda s, a, n: torch.ones_like(s[..., 0]), lambda s, a, n: s[..., 0], lambda s, a, n: a[..., 0]]
)
def test_what_carries_no_gradient_is_in_nobody_s_way(initial_state: Tensor, kind: Any, reward_fn: Any) -> None:
    model = ActionsWorldModel(3, 2, CausalTransformer(16, 1, 2, 12), reward_fn=reward_fn).double()
    policy, gradients = kind(3, 2, 8).double(), []
    for method in ("sequential", "replay"):
        imagined = imagine(model, policy, initial_state, 12, method=method, policy_input_gradient=1.0)
        value = imagined.rewards.sum() + imagined.states[:, -1].sum()
        gradients.append(torch.autograd.grad(value, list(policy.parameters())))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_a_carry_that_cannot_be_opened_is_refused(initial_state: Tensor, policy: DeterministicPolicy) -> None:
    class Closed(UnrolledWorldModel):
        def start(self, state: Tensor, horizon: int) -> Any:
            return types.SimpleNamespace(state=super().start(state, horizon))

        def step(self, carry: Any, action: Tensor) -> tuple[Any, Tensor, Tensor]:
            state, *rest = super().step(carry.state, action)
            return types.SimpleNamespace(state=state), *rest

    model = Closed(MarkovWorldModel(3, 2, 8)).double()
    with pytest.raises(ValueError, match="must be a tree .* got SimpleNamespace in it.*'sequential'"):
        imagine(model, policy, initial_state, 5, method="replay", policy_input_gradient=1.0)


def test_costates_that_are_not_finite_are_not_gone_on_from(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: Tensor
) -> None:
    solver = CostateIteration(window=4)
    options: dict[str, Any] = {"method": "replay", "policy_input_gradient": 1.0, "costates": solver}
    _, expected = policy_gradient(policy, world_model, initial_state, HORIZON, **options)
    assert solver.costates is not None
    solver.costates[0, 3, 0] = torch.inf
    _, got = policy_gradient(policy, world_model, initial_state, HORIZON, **options)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    assert solver.residual == 0
    assert solver.solutions == 2


def test_it_is_not_known_how_far_costates_moved_before_a_backward_pass_has_told(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: Tensor
) -> None:
    solver = CostateIteration(max_passes=0)
    options: dict[str, Any] = {"policy_input_gradient": 1.0, "costates": solver}
    returns = imagine(world_model, policy, initial_state, HORIZON, **options).rewards.sum()
    assert math.isnan(solver.residual)
    returns.backward()
    assert solver.residual == 1.0  # from zeros


def test_the_graph_of_a_closed_loop_serves_as_many_backward_passes_as_are_asked_for(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: Tensor
) -> None:
    returns = imagine(world_model, policy, initial_state, HORIZON, policy_input_gradient=1.0).rewards.sum()
    weights = list(policy.parameters())
    once = torch.autograd.grad(returns, weights, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(returns, weights), once, rtol=1e-12, atol=0)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(returns, weights)


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("method", ["replay", "warm", "sequential"])
def test_the_inputs_are_what_the_policy_has_read(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: Tensor, method: Any, share: float
) -> None:
    given = {"previous_states": initial_state.unsqueeze(1) + torch.randn(4, 12, 3)} if method == "warm" else {}
    imagined = imagine(world_model, policy, initial_state, 12, method=method, policy_input_gradient=share, **given)
    torch.testing.assert_close(policy(imagined.inputs), imagined.actions, rtol=1e-10, atol=1e-12)
    assert torch.equal(imagined.inputs, imagined.states[:, :-1]) == (method == "sequential")


def test_saving_memory_keeps_the_randomness_of_a_model(initial_state: Tensor, policy: DeterministicPolicy) -> None:
    backbone = CausalTransformer(16, 1, 2, HORIZON)
    backbone.norm = torch.nn.Sequential(backbone.norm, torch.nn.Dropout(0.5))  # type: ignore[assignment]
    model, gradients = ActionsWorldModel(3, 2, backbone).double(), []
    for checkpoint in (False, True):
        torch.manual_seed(0)
        options: dict[str, Any] = {"method": "sequential", "checkpoint": checkpoint}
        gradients.append(policy_gradient(policy, model, initial_state, HORIZON, **options)[1])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_replay_has_the_gradient_of_the_initial_state_too(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: Tensor, share: float
) -> None:
    initial, gradients = initial_state.clone().requires_grad_(), []
    for method in ("sequential", "replay"):
        imagined = imagine(world_model, policy, initial, HORIZON, method=method, policy_input_gradient=share)
        gradients.append(torch.autograd.grad(imagined.rewards.sum(), initial)[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-10, atol=1e-12)


def test_each_pass_makes_one_more_costate_exact(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: Tensor
) -> None:
    solvers = [CostateIteration(max_passes=passes) for passes in range(1, HORIZON + 1)]
    for solver in solvers:
        options: dict[str, Any] = {"method": "replay", "policy_input_gradient": 1.0, "costates": solver}
        policy_gradient(policy, world_model, initial_state, HORIZON, **options)
    exact = solvers[-1].costates
    assert exact is not None
    for passes, solver in enumerate(solvers, 1):
        assert solver.costates is not None
        assert solver.passes == pytest.approx(passes)
        torch.testing.assert_close(solver.costates[:, -passes:], exact[:, -passes:], rtol=1e-10, atol=0)
    assert not torch.allclose(solvers[0].costates[:, :-1], exact[:, :-1], rtol=1e-3)  # type: ignore[index]
    assert solvers[0].residual > solvers[4].residual > solvers[-1].residual


def test_warm_states_and_costates_both_converge_at_one_pass_a_step(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: Tensor
) -> None:
    options: dict[str, Any] = {"policy_input_gradient": 1.0}
    _, exact = policy_gradient(policy, world_model, initial_state, HORIZON, method="sequential", **options)
    solver, states = CostateIteration(max_passes=0), initial_state.unsqueeze(1).expand(-1, HORIZON + 1, -1) + 1.0
    errors = []
    for _ in range(2 * HORIZON):
        policy.zero_grad()
        imagined = imagine(
            *(world_model, policy, initial_state, HORIZON),
            **({"method": "warm", "previous_states": states, "costates": solver} | options),
        )
        imagined.rewards.sum(1).mean().backward()
        states = imagined.states.detach()
        gradient = torch.cat([parameter.grad.flatten() for parameter in policy.parameters()])  # type: ignore[union-attr]
        errors.append(((gradient - exact).norm() / exact.norm()).item())
    assert errors[0] > 1e-2
    assert errors[-1] < 1e-10
    assert solver.residual < 1e-10


@pytest.mark.parametrize(("refine", "tolerance"), [(1, 0.0), (4, 0.0), (HORIZON, 1e-6), (30, 1e-6)])
def test_refining_brings_given_states_nearer_to_the_decoded_ones(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: Tensor, refine: int, tolerance: float
) -> None:
    exact = imagine(world_model, policy, initial_state, HORIZON).states[:, :-1].detach()
    given = initial_state.unsqueeze(1).expand(-1, HORIZON, -1) + 1.0
    options: dict[str, Any] = {"method": "warm", "refine": refine, "tolerance": tolerance}
    imagined = imagine(world_model, policy, initial_state, HORIZON, previous_states=given, **options)
    errors = ((imagined.inputs - exact) / world_model.state_scaler.scale).abs().amax((0, 2))
    assert not imagined.has_decoded
    assert errors[: imagined.passes + 1].max() < 1e-10
    if tolerance:
        assert errors.max() < 10 * tolerance
        assert imagined.passes <= HORIZON
    else:
        assert imagined.passes == refine


def test_where_refining_does_not_contract_it_decodes(initial_state: Tensor) -> None:
    transition, policy = MarkovWorldModel(3, 2, num_layers=0).double(), DeterministicPolicy(3, 2, hidden_dim=8).double()
    with torch.no_grad():
        transition.networks[0][0].weight[:, 3:] *= 10  # type: ignore[index]  # so that actions move states far
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model = UnrolledWorldModel(transition)
    initial = initial_state - torch.tensor([100.0, 0.0, -1.0])
    exact = imagine(model, policy, initial, HORIZON)
    given = initial.unsqueeze(1).expand(-1, HORIZON, -1)
    imagined = imagine(model, policy, initial, HORIZON, method="warm", previous_states=given, refine=8)
    assert imagined.has_decoded
    assert imagined.passes < 8
    torch.testing.assert_close(imagined.states, exact.states, rtol=1e-10, atol=1e-10)


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
        (
            {"method": "warm", "checkpoint": True, "policy_input_gradient": 1.0},
            "checkpoint must be false for method 'warm'",
        ),
        ({"method": "replay", "refine": 2}, "refine is for method 'warm', got 2 and method 'replay'"),
        ({"method": "sequential", "costates": CostateIteration()}, "costates must be None for method .sequential."),
        ({"method": "replay", "costates": CostateIteration()}, "costates must be None with policy_input_gradient 0"),
        ({"method": "warm", "refine": -1}, "refine must be at least 0, got -1"),
        ({"method": "warm", "tolerance": -1.0}, "tolerance must be at least 0, got -1.0"),
        ({"method": "sequential", "policy_input_gradient": 2.0}, "policy_input_gradient must be between 0 and 1"),
        ({"method": "replay", "horizon": 13}, "max_horizon 12, got 13"),
        ({"method": "replay", "horizon": 0}, "horizon must be at least 1, got 0"),
        ({"method": "replay", "previous_states": torch.zeros(4, 11, 3)}, "previous_states are for method 'warm'"),
        (
            {"method": "warm", "previous_states": torch.zeros(4, 5, 3)},
            r"or with more steps, got \(4, 5, 3\)",
        ),
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


@pytest.mark.parametrize("method", ["warm", "replay", "sequential"])
@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("inside", [True, False])
def test_in_half_precision_the_gradient_keeps_its_direction(method: Any, share: float, inside: bool) -> None:
    model, policy = ActionsWorldModel(4, 1, CausalTransformer(32, 2, 2, 50)), DeterministicPolicy(4, 1, 32)
    with torch.no_grad():
        policy.network.layers[-1].weight.normal_(std=1.0)  # so that actions depend on the state
    initial = torch.randn(64, 4)

    def gradient(share: float, method: Any, precision: Any = None) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision is not None):
            imagined = imagine(model, policy, initial, 50, method=method, policy_input_gradient=share)
            value = (imagined.states.square().sum(-1).mean(1) + imagined.rewards.mean(1)).mean()
            if inside:
                found = torch.autograd.grad(value, list(policy.parameters()))
        if not inside:
            found = torch.autograd.grad(value, list(policy.parameters()))
        return torch.cat([part.flatten() for part in found])

    exact, got, other = (
        gradient(*each) for each in ((share, "sequential"), (share, method, torch.bfloat16), (1 - share, "sequential"))
    )
    assert torch.cosine_similarity(got, exact, dim=0) > 0.999
    assert abs(got.norm() / exact.norm() - 1) < 0.03
    assert abs(other.norm() / exact.norm() - 1) > 0.1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", ["sequential", "replay", "warm"])
def test_imagination_on_a_gpu_agrees_with_the_cpu(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: Tensor, method: str
) -> None:
    on_cpu = policy_gradient(policy, world_model, initial_state, HORIZON, method=method)
    on_gpu = policy_gradient(policy.cuda(), world_model.cuda(), initial_state.cuda(), HORIZON, method=method)
    for ours, theirs in zip(on_gpu, on_cpu, strict=True):
        assert (ours.cpu() - theirs).abs().max() <= 1e-9 * theirs.abs().max()
