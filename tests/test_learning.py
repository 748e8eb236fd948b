"""What the recipes promise, at full length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_awm.cli import main
from lit_awm.costates import CostateIteration
from lit_awm.imagination import imagine
from lit_awm.recipes import build, fit

pytestmark = pytest.mark.slow


@pytest.fixture
def scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["lit-awm"])
    assert main(["fit", "--config", "cancer_treatment"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "runs/cancer_treatment/version_0/checkpoints/last.ckpt", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_cancer_recipe_is_almost_optimal_within_5000_steps(scores: dict[str, float]) -> None:
    assert scores["env_steps"] <= 5000
    assert scores["regret"] <= 0.005
    assert scores["gap"] <= 0.05


@pytest.mark.parametrize("system", ["cancer_treatment", "van_der_pol"])
def test_the_closed_loop_gradient_of_a_fitted_model_is_that_of_a_graph_of_steps(system: str) -> None:
    closed = ["--model.policy_module.policy_input_gradient=1", "--model.policy_module.imagination=warm"]
    module, data = build([f"--data.env={system}", *closed])
    fit(module, data)
    model, policy = module.world_model.world_model.double().requires_grad_(False), module.policy.policy.double()
    initial, noise = data.draw_initial_states(8).double(), 0.1 * torch.randn(8, 100, 1).double()

    def gradient(**options: Any) -> Tensor:
        imagined = imagine(model, policy, initial, 100, policy_input_gradient=1.0, action_noise=noise, **options)
        return torch.cat([part.flatten() for part in torch.autograd.grad(imagined.rewards.sum(), policy.parameters())])

    expected = gradient(method="sequential")
    detached = imagine(model, policy, initial, 100, action_noise=noise).rewards.sum()
    parts = [part.flatten() for part in torch.autograd.grad(detached, policy.parameters())]
    assert (torch.cat(parts) - expected).norm() > 0.1 * expected.norm()  # the loop matters
    for window in (1, 10, 25, None):
        got = gradient(method="replay", costates=CostateIteration(window))
        assert (got - expected).norm() < 1e-9 * expected.norm()
