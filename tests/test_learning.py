"""What the recipes promise, at full length."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lit_awm.cli import main

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
