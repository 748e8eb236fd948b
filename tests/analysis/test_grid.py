from __future__ import annotations

import pytest
import torch

from lit_awm.analysis import solve
from lit_awm.analysis.grid import _interpolate, plan_on_grid
from lit_awm.analysis.shooting import Shooting
from lit_awm.envs import load_optimum
from lit_awm.envs.credit_assignment import CreditAssignment
from lit_awm.envs.myriad import BearPopulations, Harvest, TimberHarvest


@pytest.mark.parametrize(("system", "high"), [(Harvest, 0.45), (TimberHarvest, 16_000.0)])
def test_a_plan_on_a_grid_is_almost_optimal(system: type, high: float) -> None:
    env, optimum = system(), load_optimum(system.name)
    assert optimum is not None
    plan = plan_on_grid(env, torch.tensor([0.0]), torch.tensor([high]))
    assert plan.shape == (100, 1)
    cost = Shooting(env).costs(plan.unsqueeze(0)).item()
    assert cost == pytest.approx(optimum.cost, rel=2e-3)
    assert cost >= optimum.cost - 1e-9 * abs(optimum.cost)


def test_a_plan_knows_that_dynamics_depend_on_time() -> None:
    env = CreditAssignment(noise=0.0, episode_length=20)
    plan = plan_on_grid(env, torch.tensor([-1.0]), torch.tensor([1.0]))
    cost = Shooting(env).costs(plan.unsqueeze(0)).item()
    assert cost == pytest.approx(0, abs=1e-3)


def test_interpolation_is_exact_for_a_bilinear_function() -> None:
    axes = [torch.linspace(-1, 2, 7, dtype=torch.float64), torch.linspace(0, 5, 11, dtype=torch.float64)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)

    def function(x: torch.Tensor) -> torch.Tensor:
        return 3 + x[..., 0] - 2 * x[..., 1] + 0.5 * x[..., 0] * x[..., 1]

    states = torch.rand(100, 2, dtype=torch.float64) * torch.tensor([3.0, 5.0]) + torch.tensor([-1.0, 0.0])
    torch.testing.assert_close(_interpolate(function(grid).flatten(), states, axes), function(states))


def test_systems_too_large_for_a_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="grid must be false for bear_populations: a grid is for one or two states"):
        solve(BearPopulations(episode_length=5), starts=1, grid=True)
