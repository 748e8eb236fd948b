from __future__ import annotations

import pytest
import torch

from lit_awm.envs import SYSTEMS, Optimum, load_optimum

# Optima of the five systems in this discretisation, found by other code and other methods than this package's.
PROVEN = {
    "bear_populations": (12.284569866196943, 12.82223955044089),
    "bioreactor": (-1.38629436083806, -1.3862943608380602),
    "cancer_treatment": (20.574641117294608, 21.77127286999746),
    "hiv_treatment": (-823.1387237478928, -814.8620356581512),
    "mould_fungicide": (85.35829598295145, 86.22749796464862),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_stored_optima_are_the_proven_ones(name: str) -> None:
    optimum = load_optimum(name)
    assert optimum is not None
    assert (optimum.cost, optimum.constant_cost) == pytest.approx(PROVEN[name], rel=1e-9)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("which", ["optimal", "constant"])
def test_stored_controls_cost_what_is_stored(name: str, which: str) -> None:
    env, optimum = SYSTEMS[name](), load_optimum(name)
    assert optimum is not None
    rows = optimum.controls if which == "optimal" else [optimum.constant_control] * env.episode_length
    controls = torch.tensor(rows, dtype=torch.float64)
    low, high = env.control_bounds.unbind(-1)
    assert (controls >= low).all()
    assert (controls <= high).all()
    state, cost = env.initial_state, torch.zeros((), dtype=torch.float64)
    for step, control in enumerate(controls):
        state, reward = env.step_fn(state, control, torch.tensor(step * env.dt, dtype=torch.float64))
        cost = cost - reward
    assert cost.item() == pytest.approx(optimum.cost if which == "optimal" else optimum.constant_cost, rel=1e-9)


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_stored_random_cost_is_that_of_random_controls(name: str) -> None:
    env, optimum = SYSTEMS[name](), load_optimum(name)
    assert optimum is not None
    low, high = env.control_bounds.unbind(-1)
    state, costs = env.initial_state.expand(1024, -1), torch.zeros(1024, dtype=torch.float64)
    for step in range(env.episode_length):
        control = low + torch.rand(1024, len(low), dtype=torch.float64) * (high - low)
        state, reward = env.step_fn(state, control, torch.full((1024,), step * env.dt, dtype=torch.float64))
        costs = costs - reward
    assert abs(costs.mean() - optimum.random_cost) < 5 * costs.std() / 32


def test_scores_are_zero_at_the_optimum_and_one_at_their_baseline() -> None:
    optimum = Optimum(cost=-2.0, random_cost=8.0, constant_cost=3.0, constant_control=[0.0], controls=[[0.0]])
    assert (optimum.regret(-2.0), optimum.regret(8.0), optimum.regret(3.0)) == (0.0, 1.0, 0.5)
    assert (optimum.gap(-2.0), optimum.gap(3.0), optimum.gap(8.0)) == (0.0, 1.0, 2.0)


def test_there_is_no_gap_where_a_constant_control_is_optimal() -> None:
    optimum = load_optimum("bioreactor")
    assert optimum is not None
    assert optimum.gap(0.0) is None


@pytest.mark.parametrize(
    "options", [{"episode_length": 50}, {"integrator": "euler"}, {"r": 0.2}, {"initial_spread": 0.1}]
)
def test_no_optimum_is_claimed_for_another_problem(options: dict[str, object]) -> None:
    assert load_optimum("cancer_treatment", **options) is None


def test_options_that_change_nothing_keep_the_optimum() -> None:
    options = {"episode_length": 100, "integrator": "rk4", "delta": 0.45, "initial_spread": 0.0, "device": "cpu"}
    assert load_optimum("cancer_treatment", **options) is not None
