"""The progress bar says what is to come."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lit_awm.callbacks import AlternatingProgress, progress

BATCHES, EPOCHS = 4, 3


class Module(LightningModule):
    """Something to train; a batch takes a second by the clock that it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.now = 0.0

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.now += 1
        return self.weight.square()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Recorder(AlternatingProgress):
    """Keep what the bar would show."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=1)
        self.left: list[str] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: object) -> None:
        super().on_train_batch_end(trainer, pl_module, *arguments)  # type: ignore[arg-type]
        self.left.append(str(self.get_metrics(trainer, pl_module)["left"]))


def seconds_left(monkeypatch: pytest.MonkeyPatch, max_epochs: int, checkpoint: Path, resume: bool) -> list[str]:
    """Return what the bar says after every batch of a run that leaves a checkpoint, or goes on from it."""
    module, bar = Module(), Recorder()
    monkeypatch.setattr(progress.time, "perf_counter", lambda: module.now)
    trainer = Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[bar],
    )
    trainer.fit(module, DataLoader(range(BATCHES)), ckpt_path=checkpoint if resume else None)  # type: ignore[arg-type]
    trainer.save_checkpoint(checkpoint)
    return bar.left


def test_the_time_left_is_that_of_all_iterations_to_come(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    total = BATCHES * EPOCHS
    left = seconds_left(monkeypatch, EPOCHS, tmp_path / "a.ckpt", resume=False)
    assert left == [f"0:00:{total - done:02d}" for done in range(1, total + 1)]


def test_a_resumed_run_counts_from_where_it_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seconds_left(monkeypatch, 1, tmp_path / "a.ckpt", resume=False)
    left = seconds_left(monkeypatch, EPOCHS, tmp_path / "a.ckpt", resume=True)
    total = BATCHES * (EPOCHS - 1)
    assert left == [f"0:00:{total - done:02d}" for done in range(1, total + 1)]
