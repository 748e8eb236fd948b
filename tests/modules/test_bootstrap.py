from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from lit_awm.data import ExperienceDataModule
from lit_awm.imagination import Imagined, imagine
from lit_awm.models import DeterministicPolicy, SimulatorWorldModel
from lit_awm.models.critic import lambda_returns
from lit_awm.modules import PolicyModule, ValueBootstrap

DISCOUNT = 0.95


def linear_step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """x' = x + 0.1 u at the cost x^2 + 0.1 u^2, of the state it begins in."""
    return state + 0.1 * action, -(state.square() + 0.1 * action.square()).squeeze(-1)


def riccati() -> float:
    """The p of the optimal value -p x^2, by fixed-point iteration of the discounted Riccati equation."""
    p = 1.0
    for _ in range(2000):
        p = 1 + DISCOUNT * p - (DISCOUNT * p * 0.1) ** 2 / (0.1 + DISCOUNT * p * 0.01)
    return p


def real_value(policy: DeterministicPolicy, start: float) -> float:
    """The discounted return of a long run without any model."""
    state, total = torch.tensor([[start]]), 0.0
    with torch.no_grad():
        for step in range(300):
            state, reward = linear_step(state, policy(state))
            total += DISCOUNT**step * reward.item()
    return total


def optimise(bootstrap: Any) -> PolicyModule:
    torch.manual_seed(0)
    model = SimulatorWorldModel(1, 1, linear_step)
    states = 1.6 * torch.rand(256, 1, 1) - 0.8
    model.fit_statistics(states, torch.zeros(256, 1, 1), torch.zeros(256, 1))
    module = PolicyModule(DeterministicPolicy(1, 1, 16), model, 3, "sequential", 1.0, bootstrap=bootstrap)
    module.adopt_statistics()
    optimizer = torch.optim.Adam(module.trained_parameters(), lr=1e-2)
    for _ in range(600):
        optimizer.zero_grad()
        module.loss(TensorDict({"observation": states[torch.randint(256, (64,)), 0]}, 64)).backward()
        optimizer.step()
        module.after_update()
    return module


def test_with_a_bootstrap_three_imagined_steps_solve_an_infinite_task() -> None:
    """The value of a discounted linear-quadratic problem is known: ``-p x^2``."""
    module = optimise(partial(ValueBootstrap, discount=DISCOUNT, target_rate=0.05))
    best = -riccati() * 0.5**2
    with_bootstrap, without = real_value(module.policy, 0.5), real_value(optimise(None).policy, 0.5)
    assert with_bootstrap > 1.02 * best
    assert without < 1.3 * best
    assert module.bootstrap is not None
    assert module.bootstrap.critic(torch.tensor([[0.5]])).item() == pytest.approx(best, rel=0.1)


def test_lambda_returns_have_their_closed_forms() -> None:
    rewards, values = torch.randn(2, 4, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    one_step = rewards + 0.9 * values
    torch.testing.assert_close(lambda_returns(rewards, values, 0.9, 0.0), one_step)
    whole = sum(0.9**k * rewards[:, k] for k in range(4)) + 0.9**4 * values[:, 3]
    torch.testing.assert_close(lambda_returns(rewards, values, 0.9, 1.0)[:, 0], whole)
    mixed = rewards[:, 2] + 0.9 * (0.3 * values[:, 2] + 0.7 * one_step[:, 3])
    torch.testing.assert_close(lambda_returns(rewards, values, 0.9, 0.7)[:, 2], mixed)


def test_the_policy_learns_through_the_target_and_the_critic_from_fixed_states() -> None:
    bootstrap = ValueBootstrap(1, discount=0.9)
    for network in (bootstrap.critic, bootstrap.target):
        torch.nn.init.normal_(network.network[-1].weight)
    states, rewards = torch.randn(3, 5, 1, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    imagined = Imagined(states, torch.zeros(3, 4, 1), rewards, states[:, :-1].detach(), torch.ones(3, 5))
    expected = rewards @ 0.9 ** torch.arange(4) + 0.9**4 * bootstrap.target(states[:, -1])
    torch.testing.assert_close(bootstrap.returns(imagined), expected)
    bootstrap.returns(imagined).sum().backward()
    assert states.grad is not None
    assert states.grad[:, -1].ne(0).all()
    assert all(parameter.grad is None for parameter in bootstrap.parameters())
    states.grad = rewards.grad = None
    bootstrap.loss(imagined).backward()
    assert states.grad is None
    assert rewards.grad is None
    assert all(parameter.grad is not None for parameter in bootstrap.critic.parameters())
    assert all(parameter.grad is None for parameter in bootstrap.target.parameters())


def test_nothing_follows_the_end_of_an_episode() -> None:
    """Of eight steps that begin three before the end, only those three earn anything, the terminal cost once."""
    data = ExperienceDataModule("one_bounce", episode_length=10, num_envs=1, warmup_episodes=1)
    model = SimulatorWorldModel(
        data.state_dim, data.action_dim, data.known_step_fn, reward_fn=data.known_reward_fn, clock_step=data.clock_step
    )
    state = torch.tensor([[0.3, 0.5, 0.4], [0.3, 0.5, -1.0]])  # position, velocity, clock: step 7, and step 0
    imagined = imagine(model, DeterministicPolicy(3, 1), state, 8, method="sequential")
    assert imagined.rewards[0].ne(0).tolist() == [False, False, True] + 5 * [False]
    assert imagined.survival.sum(1).tolist() == [3, 9]
    bootstrap = ValueBootstrap(3, discount=0.9)
    torch.nn.init.ones_(bootstrap.target.network[-1].bias)
    earned = imagined.rewards @ 0.9 ** torch.arange(8)
    torch.testing.assert_close(bootstrap.returns(imagined), earned + torch.tensor([0.0, 0.9**8]))


def test_the_target_follows_the_critic() -> None:
    bootstrap = ValueBootstrap(1, target_rate=0.25)
    before = bootstrap.target.network[0].weight.clone()
    torch.nn.init.ones_(bootstrap.critic.network[0].weight)
    bootstrap.follow()
    torch.testing.assert_close(bootstrap.target.network[0].weight, 0.75 * before + 0.25)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"discount": 0.0}, "discount must be above 0 and at most 1, got 0"),
        ({"discount": 1.1}, "discount must be above 0 and at most 1, got 1.1"),
        ({"trace": 1.5}, "trace must be between 0 and 1, got 1.5"),
        ({"target_rate": 0.0}, "target_rate must be above 0 and at most 1, got 0"),
        ({"hidden_dim": 0}, "hidden_dim must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ValueBootstrap(1, **options)


def test_the_unit_of_values_is_that_of_all_states_if_the_first_are_alike() -> None:
    torch.manual_seed(0)
    bootstrap, rewards = ValueBootstrap(1), -1e4 * torch.rand(4, 5)
    states = torch.zeros(4, 6, 1)
    imagined = Imagined(states, states[:, :5], rewards[:1].expand(4, -1), states[:, :5], torch.ones(4, 6))
    bootstrap.loss(imagined)
    assert bootstrap.critic.value_scaler.scale > 1e3
