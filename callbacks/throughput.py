"""Log how fast a run goes, and in how much memory."""

from __future__ import annotations

import sys
import time

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Throughput(Callback):
    """Log time and memory after every epoch.

    Their names are ``time/elapsed_s``, ``time/env_steps_per_s``, ``time/updates_per_s`` and ``memory/peak_mb``; where
    experience is collected while models are trained also ``time/staleness``: how many policies later than the one that
    acted the latest is, in the mean over the last round.
    Time is wall time since training first started, whatever it was spent on; a resumed run goes on counting. The rates
    are averages over it. Memory is the most, in 10^6 bytes, that this process has had: of the GPU where it trains on
    one; on Windows it is not told.
    """

    def __init__(self) -> None:
        self._elapsed_before = 0.0
        self._begin: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds of training so far."""
        running = 0.0 if self._begin is None else time.perf_counter() - self._begin
        return self._elapsed_before + running

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":  # of which a checkpoint, read later, may tell how long it has taken
            self._elapsed_before = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        elapsed, env_steps = self.elapsed, getattr(getattr(trainer, "datamodule", None), "env_steps", 0)
        rates = {
            "time/elapsed_s": elapsed,
            "time/env_steps_per_s": env_steps / elapsed,
            "time/updates_per_s": trainer.global_step / elapsed,
        }
        if (staleness := getattr(getattr(trainer, "datamodule", None), "staleness", None)) is not None:
            rates["time/staleness"] = staleness
        memory = peak_memory(pl_module.device)
        pl_module.log_dict(rates if memory is None else rates | {"memory/peak_mb": memory / 1e6}, sync_dist=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._elapsed_before, self._begin = self.elapsed, None

    def state_dict(self) -> dict[str, float]:
        """Return the time so far."""
        return {"elapsed_s": self.elapsed}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on counting from ``state_dict``."""
        self._elapsed_before = state_dict["elapsed_s"]


def peak_memory(device: torch.device) -> float | None:
    """Return the most bytes that this process has had: of a GPU, or of memory; None where that is not told."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource  # which Windows has not

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
