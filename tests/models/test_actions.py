from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lit_awm.models import ActionsWorldModel, CausalTransformer, Prediction


def parallel(model: ActionsWorldModel, initial: Tensor, actions: Tensor) -> Prediction:
    return model(initial.unsqueeze(1).expand(-1, actions.shape[1], -1), actions)


def incremental(model: ActionsWorldModel, initial: Tensor, actions: Tensor) -> Prediction:
    carry, states, rewards = model.start(initial, actions.shape[1]), [], []
    for action in actions.unbind(1):
        carry, state, reward = model.step(carry, action)
        states.append(state)
        rewards.append(reward)
    return Prediction(torch.stack(states, 1), torch.stack(rewards, 1))


def known_reward(state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
    return state[..., 0] * action[..., 0] - next_state[..., 1]


FORMS = pytest.mark.parametrize("form", [parallel, incremental])


@FORMS
@pytest.mark.parametrize("horizon", [1, 5])
def test_a_state_depends_on_every_earlier_action_and_no_later_one(
    world_model: ActionsWorldModel, initial_state: Tensor, form: Callable[..., Prediction], horizon: int
) -> None:
    actions = torch.rand(4, horizon, 2, dtype=torch.float64, requires_grad=True)
    prediction = form(world_model, initial_state, actions)
    for t in range(horizon):
        for value in (prediction.state[:, t, 0], prediction.reward[:, t]):
            (gradient,) = torch.autograd.grad(value.sum(), actions, retain_graph=True)
            assert gradient[:, : t + 1].ne(0).any(dim=-1).all()
            assert gradient[:, t + 1 :].eq(0).all()


def test_only_the_first_state_is_read(world_model: ActionsWorldModel) -> None:
    states = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    prediction = world_model(states, torch.rand(4, 5, 2, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(prediction.state.square().sum(), states)
    assert gradient[:, 0].ne(0).all()
    assert gradient[:, 1:].eq(0).all()


@pytest.mark.parametrize("reward_fn", [None, known_reward])
@pytest.mark.parametrize("clock_step", [None, 0.25])
@pytest.mark.parametrize("with_gradient", [True, False])
def test_step_by_step_equals_parallel(
    initial_state: Tensor, reward_fn: Callable[..., Tensor] | None, clock_step: float | None, with_gradient: bool
) -> None:
    backbone = CausalTransformer(16, 2, 2, max_horizon=9)
    model = ActionsWorldModel(3, 2, backbone, reward_fn=reward_fn, clock_step=clock_step).double()
    model.fit_statistics(initial_state + torch.randn(6, 4, 3), torch.rand(6, 4, 2), 3 + torch.randn(6, 4))
    actions = torch.rand(4, 9, 2, dtype=torch.float64)
    with torch.set_grad_enabled(with_gradient):
        expected, got = (form(model, initial_state, actions) for form in (parallel, incremental))
    torch.testing.assert_close(got.state, expected.state, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(got.reward, expected.reward, rtol=1e-10, atol=1e-10)


@FORMS
def test_gradients_with_respect_to_state_and_actions_are_correct(
    world_model: ActionsWorldModel, initial_state: Tensor, form: Callable[..., Prediction]
) -> None:
    actions = torch.rand(2, 3, 2, dtype=torch.float64, requires_grad=True)
    initial = initial_state[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s, a: tuple(form(world_model, s, a)), (initial, actions))


@FORMS
def test_a_known_reward_is_that_of_the_predicted_states(initial_state: Tensor, form: Callable[..., Prediction]) -> None:
    model = ActionsWorldModel(3, 2, CausalTransformer(16, 1, 2, max_horizon=5), reward_fn=known_reward).double()
    actions = torch.rand(4, 5, 2, dtype=torch.float64)
    prediction = form(model, initial_state, actions)
    before = torch.cat([initial_state.unsqueeze(1), prediction.state[:, :-1]], dim=1)
    torch.testing.assert_close(prediction.reward, known_reward(before, actions, prediction.state))


@FORMS
def test_a_clock_is_counted_exactly(initial_state: Tensor, form: Callable[..., Prediction]) -> None:
    model = ActionsWorldModel(3, 2, CausalTransformer(16, 1, 2, max_horizon=5), clock_step=0.25).double()
    states = form(model, initial_state, torch.rand(4, 5, 2, dtype=torch.float64)).state
    expected = initial_state[:, 2:] + 0.25 * torch.arange(1, 6)
    torch.testing.assert_close(states[..., 2], expected, rtol=1e-14, atol=1e-14)


def test_predictions_do_not_depend_on_the_units_of_the_data(initial_state: Tensor) -> None:
    torch.manual_seed(1)
    plain = ActionsWorldModel(3, 2, CausalTransformer(16, 1, 2, max_horizon=5)).double()
    scaled = ActionsWorldModel(3, 2, CausalTransformer(16, 1, 2, max_horizon=5)).double()
    scaled.load_state_dict(plain.state_dict())
    states, actions, rewards = torch.randn(6, 5, 3).double(), torch.rand(6, 5, 2).double(), torch.randn(6, 5).double()
    plain.fit_statistics(states, actions, rewards)
    scaled.fit_statistics(1000 * states + 7, actions, rewards)
    in_plain, in_scaled = plain(states, actions), scaled(1000 * states + 7, actions)
    torch.testing.assert_close(1000 * in_plain.state + 7, in_scaled.state)
    torch.testing.assert_close(in_plain.reward, in_scaled.reward)


def test_a_checkpoint_is_whole(world_model: ActionsWorldModel, initial_state: Tensor) -> None:
    fresh = ActionsWorldModel(3, 2, CausalTransformer(16, 2, 2, max_horizon=12)).double()
    fresh.load_state_dict(world_model.state_dict())
    actions = torch.rand(4, 5, 2, dtype=torch.float64)
    assert torch.equal(
        parallel(fresh, initial_state, actions).state, parallel(world_model, initial_state, actions).state
    )


@pytest.mark.parametrize(
    ("states", "actions", "words"),
    [
        ((4, 5, 3), (4, 5), r"actions must have shape \(B, H, 2\), got \(4, 5\)"),
        ((4, 5, 3), (4, 5, 3), r"actions must have shape \(B, H, 2\), got \(4, 5, 3\)"),
        ((4, 5, 2), (4, 5, 2), r"states must have shape \(B, H, 3\), got \(4, 5, 2\)"),
        ((4, 13, 3), (4, 13, 2), "max_horizon 12, got 13. Lower `imagination_horizon`"),
    ],
)
def test_wrong_shapes_are_refused(
    world_model: ActionsWorldModel, states: tuple[int, ...], actions: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        world_model(torch.zeros(states).double(), torch.zeros(actions).double())


def test_a_horizon_beyond_the_positions_is_refused_at_the_start(
    world_model: ActionsWorldModel, initial_state: Tensor
) -> None:
    with pytest.raises(ValueError, match="between 1 and the model's max_horizon 12, got 13"):
        world_model.start(initial_state, 13)
