"""One progress bar per outer iteration, with what people look for in it."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from tensordict import TensorDictBase

SHOWN = {
    "world_model/loss": ("model loss", "{:.1e}"),
    "policy/return": ("imagined return", "{:.5g}"),
    "eval/cost": ("cost", "{:.5g}"),
    "eval/regret": ("regret", "{:.2%}"),
    "eval/gap": ("gap", "{:.1%}"),
}


class _Output:
    """Pass text on until nobody reads it any more: a bar that is piped to a program must not end a run with it."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._file.write(text)

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class AlternatingProgress(TQDMProgressBar):
    """Show phase, environment steps, losses, scores and rates; keep one line for every outer iteration.

    Args:
        refresh_rate: Updates between two refreshes of the bar; 0 switches it off. Where the output is no terminal it is
            refreshed ten times less often, so that log files stay short.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate if sys.stdout.isatty() else 10 * refresh_rate, leave=True)
        self._phase = ""

    def init_train_tqdm(self) -> Any:
        """Return the bar of an iteration."""
        bar = super().init_train_tqdm()
        bar.fp = _Output(bar.fp)
        return bar

    def init_validation_tqdm(self) -> Any:
        """Return the bar of an evaluation."""
        bar = super().init_validation_tqdm()
        bar.fp = _Output(bar.fp)
        return bar

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        super().on_train_epoch_start(trainer, *_)
        self._describe(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        phase = batch["phase"] if isinstance(batch, TensorDictBase) and "phase" in batch.keys() else ""
        if phase != self._phase:
            self._phase = phase
            self._describe(trainer)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the words behind the bar."""
        metrics = trainer.callback_metrics
        words: dict[str, int | str | float | dict[str, float]] = {}
        steps = getattr(getattr(trainer, "datamodule", None), "env_steps", None)
        if steps is not None:
            words["env steps"] = steps
        for key, (name, form) in SHOWN.items():
            if key in metrics:
                words[name] = form.format(metrics[key].item())
        return words

    def _describe(self, trainer: Trainer) -> None:
        epochs = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
        phase = f" {self._phase.replace('_', ' ')}" if self._phase else ""
        self.train_progress_bar.set_description(f"iteration {trainer.current_epoch + 1}{epochs}{phase:12s}")
