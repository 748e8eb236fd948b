"""The three tasks on which gradients through a simulator fail, against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from lit_awm.envs import ControlEnv, make_env
from lit_awm.envs.credit_assignment import CreditAssignment
from lit_awm.envs.double_pendulum import DoublePendulum
from lit_awm.envs.one_bounce import OneBounce


def final_state_and_cost(env: ControlEnv, first: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where a first control ``(B, m)`` leads, and its cost; later controls are drawn at random."""
    low, high = env.control_bounds.unbind(-1)
    state, cost = env.initial_state.expand(len(first), -1), torch.zeros(len(first), dtype=torch.float64)
    for step in range(env.episode_length):
        control = first if step == 0 else low + torch.rand_like(first) * (high - low)
        state, reward = env.step_fn(state, control, torch.full_like(cost, step * env.dt))
        cost = cost - reward
    return state, cost


def test_the_double_pendulum_conserves_energy() -> None:
    env = DoublePendulum()  # 100 steps of 0.01 s
    assert env.dt == 0.01
    first = math.pi * (2 * torch.rand(32, 2, dtype=torch.float64) - 1)
    final, _ = final_state_and_cost(env, first)
    released = torch.cat([first, torch.zeros_like(first)], dim=-1)
    assert (env.energy(final) - env.energy(released)).abs().max() < 1e-6


def test_a_double_pendulum_swings_like_a_single_one_without_a_lower_mass() -> None:
    env = DoublePendulum(m2=1e-9, l1=2.0)
    state = torch.tensor([0.7, -0.3, 0.5, 0.1], dtype=torch.float64)
    rate = env.dynamics(state, torch.zeros(2, dtype=torch.float64))
    assert rate[2].item() == pytest.approx(-env.g / env.l1 * math.sin(0.7), rel=1e-6)


def test_the_double_pendulum_reaches_its_goal_from_the_goal_angles_alone() -> None:
    env = DoublePendulum(goal_angles=(2.0, 2.5))
    first = torch.tensor([[2.0, 2.5], [2.0, 2.4], [-2.0, -2.5]], dtype=torch.float64)
    final, cost = final_state_and_cost(env, first)
    torch.testing.assert_close(final[0], env.goal, rtol=1e-12, atol=1e-12)
    assert cost[0].item() == pytest.approx(0, abs=1e-20)
    assert (cost[1:] > 1e-3).all()


def test_the_gradient_of_the_double_pendulum_grows_exponentially_with_the_episode() -> None:
    norms = []
    for episode_length in (100, 200, 300):
        env = DoublePendulum(dt=0.02, episode_length=episode_length, substeps=1)
        first = torch.tensor([[2.3, -2.8]], dtype=torch.float64, requires_grad=True)
        final, _ = final_state_and_cost(env, first)
        (gradient,) = torch.autograd.grad(final[0, 0], first)
        norms.append(gradient.norm().item())
    assert norms[1] > 5 * norms[0]
    assert norms[2] > 5 * norms[1]


def test_the_ball_ends_where_the_closed_form_says() -> None:
    env = OneBounce(episode_length=37)
    speed = torch.linspace(0, 4, 101, dtype=torch.float64).unsqueeze(-1)
    final, cost = final_state_and_cost(env, speed)
    way = speed[:, 0] * env.duration
    expected = torch.where(way <= env.wall, way, env.wall - env.restitution * (way - env.wall))
    torch.testing.assert_close(final[:, 0], expected)
    torch.testing.assert_close(cost, (expected - env.goal) ** 2)


def test_the_ball_has_its_optimum_behind_the_wall_and_a_valley_before_it() -> None:
    env = OneBounce()
    speeds = torch.tensor([[0.0], [0.5], [1.5], [env.best_speed]], dtype=torch.float64, requires_grad=True)
    _, cost = final_state_and_cost(env, speeds)
    (gradient,) = torch.autograd.grad(cost.sum(), speeds)
    assert cost[3].item() == pytest.approx(0, abs=1e-20)
    assert gradient[1] > 0  # downhill is to throw more softly, away from the optimum
    assert gradient[2] < 0
    assert cost[0] < cost[1]


def test_the_first_choice_alone_decides_the_final_reward() -> None:
    env = CreditAssignment(final_length=7, goal=0.3, episode_length=20)
    first = torch.linspace(-1, 1, 9, dtype=torch.float64).unsqueeze(-1)
    _, cost = final_state_and_cost(env, first)
    torch.testing.assert_close(cost, 7 * (first[:, 0] - 0.3) ** 2)


def test_distracting_rewards_have_the_stated_noise_and_mean_between_first_and_final_steps() -> None:
    env = make_env("credit_assignment", num_envs=4096, noise=0.5, final_length=5, goal=0.0, episode_length=12)
    rewards = env.rollout(12, lambda td: td.set("action", torch.zeros(4096, 1)))["next", "reward"][..., 0]
    assert rewards[:, 0].eq(0).all()
    assert rewards[:, 7:].eq(0).all()
    between = rewards[:, 1:7]
    assert between.std(0).sub(0.5).abs().max() < 0.03
    assert between.mean(0).abs().max() < 5 * 0.5 / 64
    assert torch.corrcoef(between.T).fill_diagonal_(0).abs().max() < 0.1


@pytest.mark.parametrize("name", ["double_pendulum", "one_bounce", "credit_assignment"])
def test_the_stated_solution_costs_nothing(name: str) -> None:
    env = make_env(name).base_env
    controls = env.solution()
    assert controls.shape == (env.episode_length, len(env.control_bounds))
    state, cost = env.initial_state, 0.0
    for step, control in enumerate(controls):
        state, reward = env.step_fn(state, control, torch.tensor(step * env.dt, dtype=torch.float64))
        cost -= reward.item()
    assert cost == pytest.approx(0, abs=1e-12)
