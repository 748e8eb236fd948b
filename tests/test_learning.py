"""What the recipes promise, at full length."""

from __future__ import annotations

import json
from importlib.util import find_spec
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


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["lit-awm"])


def scores_of(capsys: pytest.CaptureFixture[str], name: str, *command: str) -> dict[str, float]:
    """Return the scores of the last checkpoint of a run."""
    assert main(["fit", *command]) == 0
    capsys.readouterr()
    assert main(["evaluate", f"runs/{name}/version_0/checkpoints/last.ckpt", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_cancer_recipe_is_almost_optimal_within_5000_steps(capsys: pytest.CaptureFixture[str]) -> None:
    scores = scores_of(capsys, "cancer_treatment", "--config", "cancer_treatment")
    assert scores["env_steps"] <= 5000
    assert scores["regret"] <= 0.005
    assert scores["gap"] <= 0.05


@pytest.mark.skipif(find_spec("gymnasium") is None, reason="needs gymnasium")
def test_soft_actor_critic_swings_the_pendulum_up_within_8000_steps(capsys: pytest.CaptureFixture[str]) -> None:
    task = ["--data.env", "gym/Pendulum-v1", "--data.episode_length", "200", "--data.eval_episodes", "10"]
    scores = scores_of(capsys, "gym/Pendulum-v1", "--config", "sac", *task, "--trainer.max_epochs", "29")
    assert scores["env_steps"] <= 8000
    assert scores["return"] >= -200  # about -1200 for random actions, about -150 for what has learned it


@pytest.mark.parametrize("system", ["cancer_treatment", "van_der_pol"])
def test_the_closed_loop_gradient_of_a_fitted_model_is_that_of_a_graph_of_steps(system: str) -> None:
    closed = ["--model.policy_module.policy_input_gradient=1", "--model.policy_module.imagination=warm"]
    closed += ["--model.policy.least_slope=0"]
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


def test_ten_dimensions_of_noise_and_a_noisy_state_do_not_keep_a_policy_from_the_optimum(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen = ["--data.env_options.distractors", "10", "--data.env_options.observation_noise", "0.013"]
    scores = scores_of(capsys, "simple_case", "--config", "simple_case", *seen, "--trainer.max_epochs", "2")
    assert scores["env_steps"] <= 2000
    assert scores["regret"] <= 0.01  # 0.02 if the noise is read and predicted
