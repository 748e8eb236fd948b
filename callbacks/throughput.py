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
        self.elapsed = 0.0
        self._last = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._count()
        env_steps = getattr(getattr(trainer, "datamodule", None), "env_steps", 0)
        rates = {
            "time/elapsed_s": self.elapsed,
            "time/env_steps_per_s": env_steps / self.elapsed,
            "time/updates_per_s": trainer.global_step / self.elapsed,
        }
        pl_module.log_dict(rates)

    def state_dict(self) -> dict[str, float]:
        """Return the time so far."""
        self._count()
        return {"elapsed_s": self.elapsed}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on counting from ``state_dict``."""
        self.elapsed = state_dict["elapsed_s"]

    def _count(self) -> None:
        now = time.perf_counter()
        self.elapsed += now - self._last
        self._last = now
