"""One progress bar per outer iteration, with what people look for in it."""

from __future__ import annotations

import contextlib
import sys
import time
from datetime import timedelta
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
    """Show phase, environment steps, losses, scores, rates and the time left; keep one line for every outer iteration.

    The time left is that of all iterations to come, at the pace since training began; updates per second are those of
    the iteration.

    Args:
        refresh_rate: Updates between two refreshes of the bar; 0 switches it off. Where the output is no terminal it is
            refreshed ten times less often, so that log files stay short.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate if sys.stdout.isatty() else 10 * refresh_rate, leave=True)
        self._phase = ""
        self._begin: tuple[float, float, int] | None = None  # time, iterations and environment steps

    def on_train_start(self, *arguments: Any) -> None:
        super().on_train_start(*arguments)
        self._begin = None

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
        if self._begin is None:  # only now do the loops of a resumed run stand where it goes on
            before = trainer.current_epoch + batch_idx / max(trainer.num_training_batches, 1)
            self._begin = time.perf_counter(), before, _env_steps(trainer) or 0
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
        now = time.perf_counter()
        begin, before, steps_before = self._begin or (now, 0.0, 0)
        elapsed, iterations, steps = now - begin, _iterations(trainer), _env_steps(trainer)
        if steps is not None and elapsed > 0:
            words["env steps"] = f"{steps} ({(steps - steps_before) / elapsed:.3g}/s)"
        if iterations > before and trainer.max_epochs is not None and trainer.max_epochs > 0:
            left = elapsed / (iterations - before) * (trainer.max_epochs - iterations)
            words["left"] = str(timedelta(seconds=round(left)))
        for key, (name, form) in SHOWN.items():
            if key in metrics:
                words[name] = form.format(metrics[key].item())
        return words

    def _describe(self, trainer: Trainer) -> None:
        epochs = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
        phase = f" {self._phase.replace('_', ' ')}" if self._phase else ""
        self.train_progress_bar.set_description(f"iteration {trainer.current_epoch + 1}{epochs}{phase:12s}")


def _iterations(trainer: Trainer) -> float:
    """Return how many outer iterations there have been, with the part of the present one."""
    batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    return trainer.current_epoch + batches / max(trainer.num_training_batches, 1)


def _env_steps(trainer: Trainer) -> int | None:
    return getattr(getattr(trainer, "datamodule", None), "env_steps", None)
