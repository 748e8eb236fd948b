"""What holds for every family of world models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_awm.envs import KnownStep, make_env
from lit_awm.imagination import imagine
from lit_awm.models import (
    ActionsWorldModel,
    AttentionBackbone,
    CausalTransformer,
    DeterministicPolicy,
    HistoryWorldModel,
    MarkovWorldModel,
    Prediction,
    RecurrentBackbone,
    SimulatorWorldModel,
    StateSpaceBackbone,
    UnrolledWorldModel,
    WorldModel,
)

HORIZON = 9


def known_reward(state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
    return state[..., 0] * action[..., 0] - next_state[..., 1]


def simulator(**known: Any) -> SimulatorWorldModel:
    """The environment van_der_pol: two states and a clock; its second action is one that it does not have."""
    step = KnownStep(make_env("van_der_pol", episode_length=HORIZON, duration=1.0, dtype=torch.float64))
    return SimulatorWorldModel(3, 2, lambda state, action: step(state, action.sum(-1, keepdim=True) / 2), **known)


FAMILIES: dict[str, Callable[..., WorldModel]] = {
    "transformer": lambda **known: ActionsWorldModel(3, 2, CausalTransformer(16, 2, 2, HORIZON), **known),
    "attention": lambda **known: ActionsWorldModel(3, 2, AttentionBackbone(16, HORIZON), **known),
    "gru": lambda **known: ActionsWorldModel(3, 2, RecurrentBackbone(16), **known),
    "lstm": lambda **known: ActionsWorldModel(3, 2, RecurrentBackbone(16, "lstm"), **known),
    "state_space": lambda **known: ActionsWorldModel(3, 2, StateSpaceBackbone(16), **known),
    "history": lambda **known: HistoryWorldModel(3, 2, CausalTransformer(16, 2, 2, HORIZON), **known),
    "history_of_states": lambda **known: HistoryWorldModel(3, 2, RecurrentBackbone(16), "state", **known),
    "markov": lambda **known: MarkovWorldModel(3, 2, 16, **known),
    "ensemble": lambda **known: MarkovWorldModel(3, 2, 16, num_members=3, predicts="state", **known),
    "unrolled": lambda **known: UnrolledWorldModel(MarkovWorldModel(3, 2, 16, **known)),
    "simulator": simulator,
}
EVERY = pytest.mark.parametrize("family", FAMILIES)
LATER_STATES = ("history", "history_of_states", "markov", "ensemble", "simulator")


def make(family: str, **known: Any) -> WorldModel:
    """Make a model of a family whose standardisation is not trivial."""
    model = FAMILIES[family](**known).double()
    states = torch.randn(6, HORIZON, 3).cumsum(1) * torch.tensor([0.3, 0.1, 0.02]) + torch.tensor([1.0, 0.0, -1.0])
    model.fit_statistics(states, torch.rand(6, HORIZON, 2), 3 + torch.randn(6, HORIZON))
    return model


def initial_states() -> Tensor:
    state = torch.randn(4, 3, dtype=torch.float64) * torch.tensor([0.3, 0.1, 0.0])
    return state + torch.tensor([1.0, 0.0, -1.0])


def incremental(model: WorldModel, initial: Tensor, actions: Tensor) -> Prediction:
    carry, states, rewards = model.start(initial, actions.shape[1]), [], []
    for action in actions.unbind(1):
        carry, state, reward = model.step(carry, action)
        states.append(state)
        rewards.append(reward)
    return Prediction(torch.stack(states, 1), torch.stack(rewards, 1))


@EVERY
def test_to_advance_is_to_take_a_step_without_what_it_earns(family: str) -> None:
    model, initial = make(family), initial_states()
    actions = torch.rand(4, 3, 2, dtype=torch.float64)
    expected = incremental(model, initial, actions).state
    carry = model.start(initial, 3)
    for step, action in enumerate(actions.unbind(1)):
        carry, state = model.advance(carry, action)
        assert torch.equal(state, expected[:, step])


@EVERY
@pytest.mark.parametrize("known", [{}, {"reward_fn": known_reward}, {"clock_step": 2 / HORIZON}])
def test_forward_on_its_own_predictions_equals_step(family: str, known: dict[str, Any]) -> None:
    model, initial = make(family, **known), initial_states()
    actions = 2 * torch.rand(4, HORIZON, 2, dtype=torch.float64) - 1
    got = incremental(model, initial, actions)
    seen = torch.cat([initial.unsqueeze(1), got.state[:, :-1]], dim=1)
    expected = model(seen, actions)
    torch.testing.assert_close(got.state, expected.state, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(got.reward, expected.reward, rtol=1e-10, atol=1e-10)


@EVERY
def test_a_prediction_depends_on_every_earlier_action_and_no_later_one(family: str) -> None:
    model, initial = make(family), initial_states()
    actions = torch.rand(4, HORIZON, 2, dtype=torch.float64, requires_grad=True)
    states = incremental(model, initial, actions).state
    for t in range(HORIZON):
        (gradient,) = torch.autograd.grad(states[:, t, 0].sum(), actions, retain_graph=True)
        assert gradient[:, : t + 1].ne(0).any(dim=-1).all()
        assert gradient[:, t + 1 :].eq(0).all()


@EVERY
def test_what_is_ignored_is_neither_read_nor_predicted(family: str) -> None:
    model, initial, actions = make(family), initial_states(), torch.rand(4, HORIZON, 2, dtype=torch.float64)
    model.ignore(torch.tensor([False, True, False]))
    if family == "simulator":  # which is given its step
        assert not model.state_scaler.ignored.any()
        return
    states = initial.unsqueeze(1).repeat(1, HORIZON, 1).requires_grad_()
    prediction = model(states, actions)
    assert prediction.state[..., 1].eq(model.state_scaler.mean[1]).all()
    (gradient,) = torch.autograd.grad(prediction.state[..., 0].sum() + prediction.reward.sum(), states)
    assert gradient[..., 1].eq(0).all()
    assert gradient[:, 0, 0].ne(0).all()
    assert incremental(model, initial, actions).state[..., 1].eq(model.state_scaler.mean[1]).all()


@EVERY
def test_which_states_are_read_is_what_tells_the_families_apart(family: str) -> None:
    model = make(family)
    states = initial_states().unsqueeze(1).repeat(1, HORIZON, 1).requires_grad_()
    prediction = model(states, torch.rand(4, HORIZON, 2, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(prediction.state[:, -1, 0].sum(), states)
    read = gradient.ne(0).any(-1).all(0)
    assert model.reads_later_states == (family in LATER_STATES)
    if family.startswith("history"):
        assert read.all()
    else:
        at = 0 if not model.reads_later_states else HORIZON - 1
        assert read.nonzero().flatten().tolist() == [at]


@EVERY
def test_a_checkpoint_is_whole(family: str) -> None:
    model = make(family)
    fresh = FAMILIES[family]().double()
    fresh.load_state_dict(model.state_dict())
    initial, actions = initial_states(), torch.rand(4, 5, 2, dtype=torch.float64)
    assert torch.equal(incremental(fresh, initial, actions).state, incremental(model, initial, actions).state)


@EVERY
@pytest.mark.parametrize("share", [0.0, 0.7])
def test_every_family_imagines_and_has_a_policy_gradient(family: str, share: float) -> None:
    model, policy = make(family), DeterministicPolicy(3, 2, 8).double()
    imagined = imagine(model, policy, initial_states(), 5, method="sequential", policy_input_gradient=share)
    gradients = torch.autograd.grad(imagined.rewards.sum(), list(policy.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.abs().sum() > 0 for gradient in gradients)


@EVERY
def test_replay_serves_the_families_that_read_no_later_state_and_no_other(family: str) -> None:
    model, policy = make(family), DeterministicPolicy(3, 2, 8).double()
    if family in LATER_STATES:
        with pytest.raises(
            ValueError, match="'replay' needs a world model that reads no state but the first.*'sequent"
        ):
            imagine(model, policy, initial_states(), 5, method="replay")
        return
    gradients, initial = [], initial_states()
    for method in ("sequential", "replay"):
        imagined = imagine(model, policy, initial, 5, method=method)  # type: ignore[arg-type]
        gradients.append(torch.autograd.grad(imagined.rewards.sum(), list(policy.parameters())))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", ["transformer", "attention", "history"])
def test_a_horizon_beyond_the_positions_is_refused(family: str) -> None:
    with pytest.raises(ValueError, match=f"max_horizon {HORIZON}, got {HORIZON + 1}. Lower `imagination_horizon`"):
        make(family).start(initial_states(), HORIZON + 1)


@EVERY
def test_a_model_of_differences_predicts_the_clock_by_counting(family: str) -> None:
    model = make(family, clock_step=2 / HORIZON)
    states = incremental(model, initial_states(), torch.rand(4, HORIZON, 2, dtype=torch.float64)).state
    clock = -1 + 2 / HORIZON * torch.arange(1, HORIZON + 1, dtype=torch.float64)
    torch.testing.assert_close(states[..., 2], clock.expand(4, -1), rtol=1e-12, atol=1e-12)
