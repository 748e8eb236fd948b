from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_awm.analysis import random_cost, solve
from lit_awm.analysis.shooting import Shooting
from lit_awm.envs import SYSTEMS, OdeEnv, make_env
from lit_awm.envs.myriad import CancerTreatment, CartPole, InvasivePlant, Pendulum, SimpleCase, VanDerPol


class Cart(OdeEnv):
    """``x' = u`` at the price of ``u^2 - worth x``, solvable by hand."""

    name, state_names, control_names = "cart", ("x",), ("u",)

    def __init__(self, worth: float = 0.0, **options: object) -> None:
        defaults = {"initial_state": [0.0], "control_bounds": [(-1, 2)], "state_bounds": [(-1, 0.5)], "duration": 1.0}
        super().__init__(**(defaults | options))
        self.worth = worth

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        return control

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        return control[..., 0] ** 2 - self.worth * state[..., 0]


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_gradient_is_that_of_backpropagation_through_the_episode(name: str) -> None:
    env = SYSTEMS[name](episode_length=12, **({"bounds": "ignore"} if name == "tumour" else {}))
    low, high = env.control_bounds.unbind(-1)
    controls = low + (0.3 + 0.2 * torch.rand(12, len(low), dtype=torch.float64)) * (high - low)
    controls.requires_grad_()
    state, cost = env.initial_state, torch.zeros((), dtype=torch.float64)
    for step, control in enumerate(controls):
        state, reward = env.step_fn(state, control, torch.tensor(step * env.dt, dtype=torch.float64))
        cost = cost - reward
    (expected,) = torch.autograd.grad(cost, controls)
    found_cost, gradient, states = Shooting(env).evaluate(controls.detach().numpy())
    assert found_cost == pytest.approx(cost.item(), rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12 * expected.abs().max())
    np.testing.assert_allclose(states[-1], state.detach(), rtol=1e-12)


@pytest.mark.parametrize("name", SYSTEMS)
def test_states_from_those_of_controls_nearby_are_those_of_step_after_step(name: str) -> None:
    shooting = Shooting(SYSTEMS[name](episode_length=30))
    low, high = (bound.numpy() for bound in shooting.env.control_bounds.unbind(-1))
    controls = low + np.random.default_rng(0).uniform(0.4, 0.5, (30, len(low))) * (high - low)
    shooting.states(controls + 0.01 * (high - low))
    nearby = shooting.states(controls)
    np.testing.assert_allclose(nearby, Shooting(shooting.env).states(controls), rtol=1e-11, atol=1e-11)


def test_controls_nearby_spare_the_steps_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    shooting = Shooting(VanDerPol())
    controls = np.full((100, 1), 0.3)
    shooting.states(controls)
    monkeypatch.setattr(shooting.smooth, "unroll", None)
    shooting.states(controls + 0.01)
    shooting.latest = None
    with pytest.raises(TypeError):
        shooting.states(controls)


def test_controls_far_away_take_step_after_step() -> None:
    shooting = Shooting(InvasivePlant())
    shooting.latest = torch.full_like(shooting.states(np.zeros((10, 5))), torch.nan)
    controls = np.full((10, 5), 0.5)
    assert torch.equal(shooting.states(controls), Shooting(shooting.env).states(controls))


def test_a_target_is_paid_for_or_met_exactly() -> None:
    env = Cart(target_state=[0.5], target_weight=3.0, episode_length=10)
    soft, exact = solve(env, starts=2), solve(env, starts=2, exact_target=True)
    x = 3 / (3 + 1) * 0.5  # least x^2 + 3 (x - 1/2)^2, with u constant
    assert soft.cost == pytest.approx(x**2 + 3 * (x - 0.5) ** 2, rel=1e-9)
    assert exact.cost == pytest.approx(0.25, rel=1e-6)
    torch.testing.assert_close(exact.controls, torch.full((10, 1), 0.5, dtype=torch.float64), rtol=1e-4, atol=0)
    assert exact.violation <= 1e-6
    assert soft.target_error == pytest.approx((0.5 - x) / 1.5, rel=1e-4)  # of the width of the state's bounds
    assert exact.target_error == pytest.approx(0, abs=1e-6)
    assert solve(Cart(episode_length=10), starts=1).target_error is None


def test_charged_bounds_bind() -> None:
    env = Cart(worth=100.0, bounds="charge", bound_weight=1000.0, episode_length=20)
    found = solve(env, starts=2)
    states = Shooting(env).states(found.controls.numpy())[:, 0]
    assert states.max().item() == pytest.approx(0.5, abs=1e-6)
    assert states[5:].sub(0.5).abs().max() < 1e-5  # full speed ahead, then along the bound
    assert found.controls[:5].sub(2).abs().max() < 1e-3
    assert solve(Cart(worth=100.0, episode_length=20), starts=1).cost < found.cost


def test_a_charge_that_is_too_low_to_keep_the_optimum_inside_is_named() -> None:
    with pytest.raises(ValueError, match="bound_weight must be at least .* which leaving the bounds is worth, got 1.0"):
        solve(Cart(worth=100.0, bounds="charge", bound_weight=1.0, episode_length=20), starts=1)
    with pytest.raises(ValueError, match=r"x_0 must lie within the state bounds, which are charged for, got \[0.6\]"):
        solve(Cart(initial_state=[0.6], bounds="charge"), starts=1)


def test_an_environment_is_solved_as_agents_see_it_too() -> None:
    options = {"episode_length": 10, "target_weight": 5.0}
    seen, plain = make_env("van_der_pol", **options), VanDerPol(**options)
    assert solve(seen, starts=1, exact_target=True).cost == solve(plain, starts=1, exact_target=True).cost
    assert random_cost(seen, sequences=8) == random_cost(plain, sequences=8)


def test_the_best_constant_control_is_found() -> None:
    found = solve(CancerTreatment(), starts=3, constant=True)
    assert found.cost == pytest.approx(21.77127286999746, rel=1e-9)  # by a scan of the control's range
    assert found.controls.unique().numel() == 1


def test_all_starts_are_reported_in_order() -> None:
    found = solve(VanDerPol(episode_length=20), starts=5, progress=True)
    assert len(found.costs) == 5
    assert found.costs == sorted(found.costs)
    assert found.cost == found.costs[0]
    assert found.time_s > 0


def test_the_same_seed_finds_the_same() -> None:
    first, second = (solve(InvasivePlant(), starts=5, seed=1) for _ in range(2))
    assert first.costs == second.costs


def test_random_controls_that_leave_the_domain_are_charged_once() -> None:
    env = SYSTEMS["bacteria"](bounds="ignore")
    assert random_cost(env, sequences=64) == pytest.approx(env.exit_cost, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"starts": 0}, "starts must be at least 1, got 0"),
        ({"grid": True, "constant": True}, "grid must be false for a constant control"),
        ({"exact_target": True}, "exact_target must be false for simple_case, which has no target"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        solve(SimpleCase(), **options)


@pytest.mark.slow
@pytest.mark.parametrize(("system", "proven"), [(CartPole, 88.11183630446041), (Pendulum, 25.441784335075294)])
def test_the_published_behaviour_has_its_proven_optimum(system: type[OdeEnv], proven: float) -> None:
    found = solve(system(published=True), starts=1, exact_target=True)
    assert found.cost == pytest.approx(proven, rel=1e-4)


def test_it_begins_at_given_controls_as_well() -> None:
    env = SimpleCase(episode_length=20)
    best = solve(env, starts=1)
    again = solve(env, starts=1, nearby=best.controls)
    assert len(again.costs) == len(best.costs) + 1
    assert again.cost == pytest.approx(best.cost, rel=1e-9)
