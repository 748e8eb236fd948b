"""The progress bar says what is to come."""

from __future__ import annotations

from collections.abc import Callable
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


SecondsLeft = Callable[..., list[str]]


@pytest.fixture
def seconds_left(monkeypatch: pytest.MonkeyPatch, make_trainer: Callable[..., Trainer], tmp_path: Path) -> SecondsLeft:
    """Return what the bar says after every batch of a run that leaves a checkpoint, or goes on from it."""

    def run(max_epochs: int, resume: bool) -> list[str]:
        module, bar, checkpoint = Module(), Recorder(), tmp_path / "a.ckpt"
        monkeypatch.setattr(progress.time, "perf_counter", lambda: module.now)
        trainer = make_trainer(max_epochs=max_epochs, enable_progress_bar=True, callbacks=[bar])
        trainer.fit(module, DataLoader(range(BATCHES)), ckpt_path=checkpoint if resume else None)  # type: ignore[arg-type]
        trainer.save_checkpoint(checkpoint)
        return bar.left

    return run


def test_the_time_left_is_that_of_all_iterations_to_come(seconds_left: SecondsLeft) -> None:
    total = BATCHES * EPOCHS
    assert seconds_left(EPOCHS, resume=False) == [f"0:00:{total - done:02d}" for done in range(1, total + 1)]


def test_a_resumed_run_counts_from_where_it_goes_on(seconds_left: SecondsLeft) -> None:
    seconds_left(1, resume=False)
    total = BATCHES * (EPOCHS - 1)
    assert seconds_left(EPOCHS, resume=True) == [f"0:00:{total - done:02d}" for done in range(1, total + 1)]
