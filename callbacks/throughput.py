"""Log how fast a run goes."""

from __future__ import annotations

import time

from lightning.pytorch import Callback, LightningModule, Trainer


class Throughput(Callback):
    """Log ``time/elapsed_s``, ``time/env_steps_per_s`` and ``time/updates_per_s`` after every epoch.

    Time is wall time since training first started, whatever it was spent on; a resumed run goes on counting. The rates
    are averages over it.
    """

    def __init__(self) -> None:
        self._elapsed_before = 0.0
        self._begin: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds of training so far."""
        running = 0.0 if self._begin is None else time.perf_counter() - self._begin
        return self._elapsed_before + running

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        elapsed, env_steps = self.elapsed, getattr(getattr(trainer, "datamodule", None), "env_steps", 0)
        rates = {
            "time/elapsed_s": elapsed,
            "time/env_steps_per_s": env_steps / elapsed,
            "time/updates_per_s": trainer.global_step / elapsed,
        }
        pl_module.log_dict(rates)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._elapsed_before, self._begin = self.elapsed, None

    def state_dict(self) -> dict[str, float]:
        """Return the time so far."""
        return {"elapsed_s": self.elapsed}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on counting from ``state_dict``."""
        self._elapsed_before = state_dict["elapsed_s"]
