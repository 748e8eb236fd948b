"""Parity with figures computed by automatic differentiation of the published equations, in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_awm.envs import SYSTEMS, OdeEnv
from lit_awm.envs.myriad import MouldFungicide

REFERENCE = np.load(Path(__file__).parent.parent / "fixtures" / "myriad_reference.npz")
CASES = {**{name: (name, {}) for name in SYSTEMS}, "mould_fungicide__gin": (MouldFungicide.name, {"A": 1.0})}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, OdeEnv]:
    name, parameters = CASES[request.param]
    return request.param, SYSTEMS[name](dtype=torch.float64, **parameters)


def reference(case: str, key: str) -> Tensor:
    return torch.from_numpy(REFERENCE[f"{case}/{key}"])


def assert_equal(value: Tensor, expected: Tensor, tolerance: float) -> None:
    scale = expected.abs().max().clamp_min(1e-300)
    assert value.shape == expected.shape
    assert (value - expected).abs().max() <= tolerance * scale


def test_constants_are_the_published_ones(case: tuple[str, OdeEnv]) -> None:
    name, env = case
    assert torch.equal(env.initial_state, reference(name, "x_0"))
    assert torch.equal(env.control_bounds, reference(name, "u_bounds"))
    assert torch.equal(env.state_bounds, reference(name, "x_bounds"))
    assert env.duration == reference(name, "T").item()


def test_equations_and_their_derivatives_agree_at_random_points(case: tuple[str, OdeEnv]) -> None:
    name, env = case
    state = reference(name, "points_x").requires_grad_()
    control = reference(name, "points_u").requires_grad_()
    rates = env.dynamics(state, control)
    cost = env.running_cost(state, control, reference(name, "points_t"))
    assert_equal(rates, reference(name, "points_dynamics"), 1e-10)
    assert_equal(cost, reference(name, "points_cost"), 1e-10)
    assert_equal(env.terminal_cost(state), reference(name, "points_terminal_cost_fn"), 1e-10)

    def derivatives(value: Tensor) -> tuple[Tensor, ...]:
        found = torch.autograd.grad(value.sum(), (state, control), retain_graph=True, materialize_grads=True)
        return tuple(found)

    by_state, by_control = zip(*(derivatives(rate) for rate in rates.unbind(-1)), strict=True)
    assert_equal(torch.stack(by_state, 1), reference(name, "points_dfdx"), 1e-10)
    assert_equal(torch.stack(by_control, 1), reference(name, "points_dfdu"), 1e-10)
    cost_by_state, cost_by_control = derivatives(cost)
    assert_equal(cost_by_state, reference(name, "points_dgdx"), 1e-10)
    assert_equal(cost_by_control, reference(name, "points_dgdu"), 1e-10)


def test_trajectories_costs_and_gradients_agree(case: tuple[str, OdeEnv]) -> None:
    name, env = case
    controls = reference(name, "traj_u").requires_grad_()
    initial = reference(name, "traj_x")[:, 0].clone().requires_grad_()
    states, rewards = [initial], []
    for step in range(controls.shape[1]):
        time = torch.full(controls.shape[:1], step * env.dt, dtype=torch.float64)
        state, reward = env.step_fn(states[-1], controls[:, step], time)
        states.append(state)
        rewards.append(reward)
    costs = -torch.stack(rewards, 1)
    assert_equal(torch.stack(states, 1), reference(name, "traj_x"), 1e-9)
    assert_equal(costs, reference(name, "traj_step_cost"), 1e-9)
    assert_equal(costs.sum(1), reference(name, "traj_total_cost"), 1e-9)
    by_control, by_initial = torch.autograd.grad(costs.sum(), (controls, initial))
    assert_equal(by_control, reference(name, "traj_grad_u"), 1e-9)
    assert_equal(by_initial, reference(name, "traj_grad_x0"), 1e-9)
