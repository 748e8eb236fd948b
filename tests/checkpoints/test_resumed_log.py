"""A run that was asked to stop at every update ends as one that was left alone, in its log and its weights."""

from __future__ import annotations

import csv
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from lit_awm.checkpoints import ResumableCSVLogger
from lit_awm.cli import main
from lit_awm.envs.simulators import PACKAGES
from lit_awm.modules import AlternatingModule

pytestmark = pytest.mark.program

OPTIONS = """fit --config bear_populations --resume --trainer.max_epochs 2 --trainer.log_every_n_steps 2
    --data.episode_length 10 --data.num_envs 1 --data.warmup_episodes 2 --data.world_model_updates 2
    --data.teacher_updates 2 --data.policy_updates 3 --data.turns 2 --model.world_model.backbone.hidden_dim 16"""
Run = tuple[list[dict[str, str]], dict[str, Any]]


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> Run:
    """Run in a folder until the run ends by itself; return its log but for times and memory, and its weights."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    for _ in range(30):
        try:
            main([*OPTIONS.split(), *options])
        except SystemExit as stop:
            if stop.code == 128 + signal.SIGTERM:
                continue
            raise
        version = Path("runs/bear_populations/version_0")
        with (version / "metrics.csv").open(newline="") as file:
            rows = [
                {k: v for k, v in row.items() if not k.startswith(("time/", "memory/"))} for row in csv.DictReader(file)
            ]
        return rows, torch.load(version / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu")[
            "state_dict"
        ]
    raise AssertionError("the run does not go on")


@pytest.fixture
def run_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Run, Run]]:
    """A run that stops at every update, and one that never does."""

    def run_both(*options: str) -> tuple[Run, Run]:
        monkeypatch.setattr(sys, "argv", ["lit-awm"])
        whole = run(tmp_path / "whole", monkeypatch, *options)
        step = AlternatingModule.training_step

        def interrupted(self: AlternatingModule, batch: TensorDict, batch_idx: int) -> Any:
            os.kill(os.getpid(), signal.SIGTERM)
            return step(self, batch, batch_idx)

        monkeypatch.setattr(AlternatingModule, "training_step", interrupted)
        return run(tmp_path / "interrupted", monkeypatch, *options), whole

    return run_both


ELSEWHERE = "--model.known_reward false --trainer.logger.name bear_populations --data.env"
VARIANTS = {
    "recipe": "",
    "evaluation within an epoch": "--trainer.val_check_interval 2",
    "evaluation of every second epoch": "--trainer.check_val_every_n_epoch 2",
    "gym": f"{ELSEWHERE} gym/Pendulum-v1",
    "dmc": f"{ELSEWHERE} dmc/cartpole-swingup",
}


@pytest.mark.parametrize("variant", [pytest.param(v, marks=[pytest.mark.slow] * (v != "recipe")) for v in VARIANTS])
def test_a_run_that_stops_at_every_update_ends_as_one_does_that_never_stops(
    run_both_ways: Callable[..., tuple[Run, Run]], variant: str
) -> None:
    if variant in PACKAGES:
        pytest.importorskip(PACKAGES[variant])
    (rows, weights), (expected_rows, expected_weights) = run_both_ways(*VARIANTS[variant].split())
    assert rows == expected_rows
    assert weights.keys() == expected_weights.keys()
    for name, value in weights.items():
        assert not isinstance(value, torch.Tensor) or torch.equal(value, expected_weights[name]), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_with_deterministic_algorithms_it_ends_within_a_millionth(
    run_both_ways: Callable[..., tuple[Run, Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    options = ["--trainer.accelerator", "gpu", "--trainer.deterministic", "true"]
    try:
        (rows, weights), (expected_rows, expected_weights) = run_both_ways(*options)
    finally:
        torch.use_deterministic_algorithms(False)
    assert len(rows) == len(expected_rows)
    for name, value in weights.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, expected_weights[name], rtol=1e-6, atol=1e-6)


def test_a_folder_is_locked_again_in_a_further_fit(tmp_path: Path) -> None:
    logger = ResumableCSVLogger(str(tmp_path), "run", 0)
    for _ in range(2):
        logger.log_metrics({"loss": 1.0}, 0)
        with pytest.raises(ValueError, match="is being written to by another run"):
            ResumableCSVLogger(str(tmp_path), "run", 0).log_metrics({"loss": 2.0}, 0)
        logger.finalize("success")
