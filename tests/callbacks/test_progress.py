"""The progress bar says what is to come."""

from __future__ import annotations

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


@pytest.fixture
def seconds_left(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    module, bar = Module(), Recorder()
    monkeypatch.setattr(progress.time, "perf_counter", lambda: module.now)
    trainer = Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[bar],
    )
    trainer.fit(module, DataLoader(range(BATCHES)))  # type: ignore[arg-type]
    return bar.left


def test_the_time_left_is_that_of_all_iterations_to_come(seconds_left: list[str]) -> None:
    total = BATCHES * EPOCHS
    assert seconds_left == [f"0:00:{total - done:02d}" for done in range(1, total + 1)]
