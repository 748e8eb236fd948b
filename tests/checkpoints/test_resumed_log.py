"""The log of a run that was asked to stop at every update is that of a run that was left alone."""

from __future__ import annotations

import csv
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from tensordict import TensorDict

from lit_awm.cli import main
from lit_awm.modules import AlternatingModule

OPTIONS = """fit --config bear_populations --resume --trainer.max_epochs 2 --trainer.log_every_n_steps 2
    --data.episode_length 10 --data.num_envs 1 --data.warmup_episodes 2 --data.world_model_updates 2
    --data.policy_updates 3 --model.world_model.backbone.hidden_dim 16"""


def log(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Run in a folder until the run ends by itself; return the rows of its log but for times."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    for _ in range(30):
        try:
            main(OPTIONS.split())
        except SystemExit as stop:
            if stop.code == 128 + signal.SIGTERM:
                continue
            raise
        with Path("runs/bear_populations/version_0/metrics.csv").open(newline="") as file:
            return [{k: v for k, v in row.items() if "time/" not in k} for row in csv.DictReader(file)]
    raise AssertionError("the run does not go on")


def test_a_run_that_stops_at_every_update_logs_what_one_does_that_never_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["lit-awm"])
    expected = log(tmp_path / "whole", monkeypatch)
    step = AlternatingModule.training_step

    def interrupted(self: AlternatingModule, batch: TensorDict, batch_idx: int) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(AlternatingModule, "training_step", interrupted)
    assert log(tmp_path / "interrupted", monkeypatch) == expected
