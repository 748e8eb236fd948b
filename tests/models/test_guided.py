from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lit_awm.costates import CostateIteration
from lit_awm.imagination import imagine
from lit_awm.models import (
    ActionsWorldModel,
    CausalTransformer,
    Continuation,
    DeterministicPolicy,
    GuidedWorldModel,
    HistoryWorldModel,
    MarkovWorldModel,
    RewardModel,
    UnrolledWorldModel,
    WorldModel,
)

HORIZON = 6


def reward(state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
    return -(next_state.square().sum(-1) + 0.1 * action.square().sum(-1) + (state * next_state).sum(-1))


def make_parts(**known: Any) -> tuple[ActionsWorldModel, MarkovWorldModel]:
    torch.manual_seed(0)
    known = {"reward_fn": reward} | known
    model = ActionsWorldModel(3, 2, CausalTransformer(16, 1, 2, max_horizon=HORIZON), **known)
    guide = MarkovWorldModel(3, 2, hidden_dim=8, **known)
    states, actions = torch.randn(5, HORIZON + 1, 3), torch.randn(5, HORIZON, 2)
    for each in (model, guide):
        each.fit_statistics(states, actions, torch.zeros(5, HORIZON))
    return model.double(), guide.double()


def make_policy(guided: WorldModel, **options: Any) -> DeterministicPolicy:
    torch.manual_seed(1)
    policy = DeterministicPolicy(3, 2, hidden_dim=8, **options).double()
    policy.state_scaler.load_state_dict(guided.state_scaler.state_dict())
    return policy


def initial(count: int = 2) -> Tensor:
    return torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_values_are_the_guides_and_derivatives_the_world_models() -> None:
    model, guide = make_parts()
    guided = GuidedWorldModel(model, guide)
    actions = torch.rand(2, HORIZON, 2, dtype=torch.float64, requires_grad=True)
    states = [initial()]
    for action in actions.unbind(1):
        states.append(guide.next_state(states[-1], action).detach())
    found = guided(torch.stack(states[:-1], 1), actions)
    assert torch.equal(found.state, torch.stack(states[1:], 1))
    weights = torch.randn_like(found.state)
    (ours,) = torch.autograd.grad((found.state * weights).sum(), actions, retain_graph=True)
    predicted = model(initial().unsqueeze(1), actions).state
    (theirs,) = torch.autograd.grad((predicted * weights).sum(), actions)
    assert torch.allclose(ours, theirs, atol=1e-12)
    # The reward's gradient is taken where the guide is.
    at = torch.stack(states, 1)
    assert torch.allclose(found.reward, reward(at[:, :-1], actions, at[:, 1:]))


def test_all_states_that_the_guide_goes_through_have_to_be_given() -> None:
    guided = GuidedWorldModel(*make_parts())
    with pytest.raises(ValueError, match=r"states must have B and H of actions \(2, 6\), got \(2, 1\)"):
        guided(initial().unsqueeze(1), torch.zeros(2, HORIZON, 2, dtype=torch.float64))


def test_no_gradient_reaches_the_guide() -> None:
    model, guide = make_parts()
    guided = GuidedWorldModel(model, guide)
    imagine(guided, make_policy(guided), initial(), HORIZON).rewards.sum().backward()
    assert all(parameter.grad is None for parameter in guide.parameters())


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_methods_imagine_the_same_and_have_the_same_gradient(share: float) -> None:
    guided = GuidedWorldModel(*make_parts())
    results = []
    for method in ("sequential", "replay"):
        policy = make_policy(guided)
        costates = CostateIteration(window=2) if share and method == "replay" else None
        imagined = imagine(
            guided, policy, initial(), HORIZON, method=method, policy_input_gradient=share, costates=costates
        )
        imagined.rewards.sum().backward()
        gradient = torch.cat([parameter.grad.flatten() for parameter in policy.parameters()])
        results.append((imagined.states, imagined.rewards, gradient))
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, atol=1e-10)


def test_the_gradient_is_exact_where_both_models_are_the_same() -> None:
    _, guide = make_parts()
    guided = GuidedWorldModel(UnrolledWorldModel(guide), guide)
    gradients = []
    for model, method in ((guide, "sequential"), (guided, "replay")):
        policy = make_policy(guide)
        imagine(model, policy, initial(), HORIZON, method=method).rewards.sum().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in policy.parameters()]))
    assert torch.allclose(*gradients, atol=1e-10)


def test_states_stay_near_the_data_where_the_guide_diverges() -> None:
    model, guide = make_parts()
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.mul_(100)
    guided = GuidedWorldModel(model, guide)
    states = imagine(guided, make_policy(guided), initial(), HORIZON).states
    deviations = guide.state_scaler(states).abs().amax()
    assert 19.9 < deviations <= 20 + 1e-9


def test_a_learned_reward_and_the_chance_of_an_end_are_taken_where_the_guide_is() -> None:
    learned = RewardModel(3, 2).double()
    model, guide = make_parts(reward_fn=learned)
    model.continuation = Continuation(3).double()
    guided = GuidedWorldModel(model, guide)
    imagined = imagine(guided, make_policy(guided), initial(), HORIZON)
    states = imagined.states
    survival = model.survival(states)
    assert torch.allclose(imagined.survival, survival)
    earned = learned(states[:, :-1], imagined.actions, states[:, 1:])
    assert torch.allclose(imagined.rewards, earned * survival[:, :-1])


def test_what_is_ignored_and_the_clock_are_those_of_the_world_model() -> None:
    model, guide = make_parts(clock_step=1 / HORIZON)
    noise = torch.tensor([True, False, False])
    model.ignore(noise)
    guide.ignore(noise)
    guided = GuidedWorldModel(model, guide)
    start = guided.without_ignored(initial())
    start[:, -1] = 0
    states = imagine(guided, make_policy(guided), start, HORIZON).states
    assert torch.allclose(states[..., 0], model.state_scaler.mean[0])
    assert torch.allclose(states[0, :, -1], torch.linspace(0, 1, HORIZON + 1, dtype=torch.float64))


def test_a_model_that_cannot_be_guided_is_refused() -> None:
    _, guide = make_parts()
    history = HistoryWorldModel(3, 2, CausalTransformer(16, 1, 2, max_horizon=HORIZON), reward_fn=reward)
    with pytest.raises(ValueError, match=r"no state but the first to be guided.*got History.*`guide_from: null`"):
        GuidedWorldModel(history, guide)
    with pytest.raises(ValueError, match="guide must be a MarkovWorldModel, got ActionsWorldModel"):
        GuidedWorldModel(make_parts()[0], make_parts()[0])
    unrewarded = ActionsWorldModel(3, 2, CausalTransformer(16, 1, 2, max_horizon=HORIZON))
    with pytest.raises(ValueError, match=r"reward that is a function of states and actions.*`guide_from: null`"):
        GuidedWorldModel(unrewarded, guide)
