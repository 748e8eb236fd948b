"""Parity with figures computed by automatic differentiation of the published equations, in float64.

The published systems know no price for missing an end state, no charge for leaving the bounds and no domain: these are
switched off here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_awm.envs import OdeEnv, myriad

REFERENCE = np.load(Path(__file__).parent.parent / "fixtures" / "myriad_reference.npz")
SYSTEMS: dict[str, type[OdeEnv]] = {getattr(myriad, name).name: getattr(myriad, name) for name in myriad.__all__}
VARIANTS: dict[str, dict[str, object]] = {
    "bacteria__gin": {"B": 1.0},
    "mould_fungicide__gin": {"A": 1.0},
    "cartpole": {"published": True},
    "cartpole__kelly": {},
    "pendulum": {"published": True},
    "invasive_plant": {"published": True},
    "invasive_plant__doc": {},
}
CASES = sorted({key.split("/")[0] for key in REFERENCE.files})


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, OdeEnv]:
    system = SYSTEMS[request.param.split("__")[0]]
    options = VARIANTS.get(request.param, {})
    return request.param, system(dtype=torch.float64, target_weight=0.0, bounds="ignore", **options)


def reference(case: str, key: str) -> Tensor:
    return torch.from_numpy(REFERENCE[f"{case}/{key}"])


def assert_equal(value: Tensor, expected: Tensor, tolerance: float) -> None:
    scale = expected.abs().max().clamp_min(1e-300)
    assert value.shape == expected.shape
    assert (value - expected).abs().max() <= tolerance * scale


def test_every_system_and_every_variant_has_reference_data() -> None:
    assert len(CASES) == 25
    assert {case.split("__")[0] for case in CASES} == set(SYSTEMS)
    assert len(SYSTEMS) == 21


def test_constants_are_the_published_ones(case: tuple[str, OdeEnv]) -> None:
    name, env = case
    torch.testing.assert_close(env.initial_state, reference(name, "x_0"), rtol=1e-15, atol=0)
    torch.testing.assert_close(env.state_bounds, reference(name, "x_bounds"), rtol=1e-15, atol=0)
    torch.testing.assert_close(env.target_state, reference(name, "x_T"), rtol=1e-15, atol=0, equal_nan=True)
    assert env.duration == reference(name, "T").item()
    control_bounds = reference(name, "u_bounds")
    if name == "simple_case":  # unbounded as published, which actions in [-1, 1] cannot be scaled to
        control_bounds = torch.tensor([[-2.0, 2.0]], dtype=torch.float64)
    assert torch.equal(env.control_bounds, control_bounds)


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
        if not value.requires_grad:
            return torch.zeros_like(state), torch.zeros_like(control)
        return torch.autograd.grad(value.sum(), (state, control), retain_graph=True, materialize_grads=True)

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
    terminal = reference(name, "traj_terminal_cost")
    costs = -torch.stack(rewards, 1)
    assert_equal(torch.stack(states, 1), reference(name, "traj_x"), 1e-9)
    assert_equal(env.terminal_cost(states[-1]), terminal, 1e-9)
    last = torch.cat([torch.zeros_like(costs[:, 1:]), terminal.unsqueeze(1)], dim=1)
    assert_equal(costs, reference(name, "traj_step_cost") + last, 1e-9)
    assert_equal(costs.sum(1), reference(name, "traj_total_cost"), 1e-9)

    def gradients(value: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(value, (controls, initial), retain_graph=True, materialize_grads=True)

    by_control, by_initial = gradients(costs.sum())
    assert_equal(by_control, reference(name, "traj_grad_u"), 1e-9)
    assert_equal(by_initial, reference(name, "traj_grad_x0"), 1e-9)
    if f"{name}/traj_w" in REFERENCE.files:
        by_control, by_initial = gradients((states[-1] @ reference(name, "traj_w")).sum())
        assert_equal(by_control, reference(name, "traj_grad_wxN_u"), 1e-9)
        assert_equal(by_initial, reference(name, "traj_grad_wxN_x0"), 1e-9)
