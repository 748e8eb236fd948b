from __future__ import annotations

import json

import pytest
import torch

from lit_awm.analysis import Setting, Subject, compare_gradients, draw_landscape, random_direction
from lit_awm.analysis.figures import gradient_figure, landscape_figure
from lit_awm.imagination import imagine
from lit_awm.models import DeterministicPolicy, MarkovWorldModel, SimulatorWorldModel, TanhNormalPolicy


def step(state: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    next_state = 1.3 * state + action
    return next_state, next_state.sum(-1)


@pytest.fixture
def setting() -> Setting:
    policy = DeterministicPolicy(1, 1, 8).double()
    truth = SimulatorWorldModel(1, 1, step)
    return Setting(policy, torch.rand(4, 1, dtype=torch.float64), torch.ones(1, dtype=torch.float64), truth)


def test_a_report_tells_exponential_growth_and_fidelity(setting: Setting) -> None:
    subjects = [Subject("markov", fitted, MarkovWorldModel(1, 1).double()) for fitted in (True, False)]
    report = compare_gradients(subjects, setting, [2, 4, 8, 16, 32])
    assert [row["cosine"] for row in report.of("simulator")] == pytest.approx([1.0] * 5)
    assert all(row["cosine"] is not None for row in report.rows)
    growth = report.growth["simulator"]
    for name in ("state_norm", "distance"):
        assert growth[name] is not None
        assert growth[name].winner == "exponential"
    assert growth["state_norm"].rate == pytest.approx(1.3, rel=1e-6)
    assert set(report.growth) == {"simulator", "markov", "markov (fresh)"}
    assert json.loads(json.dumps(report.as_dict()))["rows"] == report.rows
    assert len(gradient_figure(report, "title").axes) == 6
    table = report.table()
    assert "exponential: 1.3^x" in table
    assert "markov (fresh)" in table


def test_without_a_truth_there_is_no_fidelity(setting: Setting) -> None:
    subjects = [Subject("markov", True, MarkovWorldModel(1, 1).double())]
    report = compare_gradients(subjects, setting._replace(truth=None), [2, 4, 8])
    assert [row["cosine"] for row in report.rows] == [None] * 3
    assert list(report.growth) == ["markov"]


def test_the_middle_of_a_landscape_is_the_policy_and_the_gradient_leads_up(setting: Setting) -> None:
    assert setting.truth is not None
    directions = random_direction(setting.policy), random_direction(setting.policy)
    landscape = draw_landscape(setting.truth, setting.policy, setting.initial_state, 5, directions, resolution=5)
    imagined = imagine(setting.truth, setting.policy, setting.initial_state, 5, method="sequential")
    here = imagined.rewards.sum(1).mean().detach()
    torch.testing.assert_close(landscape.plane[2, 2], here)
    torch.testing.assert_close(landscape.line[2], here)
    assert landscape.line[3] > landscape.line[2] > landscape.line[1]
    with torch.no_grad():
        for name, parameter in setting.policy.named_parameters():
            parameter += 0.5 * directions[0][name] - directions[1][name]
        moved = imagine(setting.truth, setting.policy, setting.initial_state, 5, method="sequential")
    torch.testing.assert_close(landscape.plane[3, 0], moved.rewards.sum(1).mean())
    assert len(landscape_figure({"simulator": landscape}, "title").axes) == 3


def test_a_direction_is_as_long_as_the_parameters() -> None:
    policy = TanhNormalPolicy(2, 1, 8)
    length = torch.cat([parameter.detach().flatten() for parameter in policy.parameters()]).norm()
    direction = torch.cat([part.flatten() for part in random_direction(policy).values()])
    torch.testing.assert_close(direction.norm(), length)


@pytest.mark.parametrize("resolution", [1, 4])
def test_an_even_resolution_is_refused(setting: Setting, resolution: int) -> None:
    assert setting.truth is not None
    directions = random_direction(setting.policy), random_direction(setting.policy)
    with pytest.raises(ValueError, match=f"resolution must be odd and at least 3, got {resolution}"):
        draw_landscape(setting.truth, setting.policy, setting.initial_state, 5, directions, resolution)
