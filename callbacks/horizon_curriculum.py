"""Lengthen the imagined trajectories as training goes on."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lit_awm.callbacks.horizon import HorizonCallback
from lit_awm.callbacks.policy_module import policy_module
from lit_awm.checks import check_count


class HorizonCurriculum(HorizonCallback):
    """Raise the ``imagination_horizon`` linearly or stepwise with progress, from ``start`` to the module's own.

    The horizon is a pure function of the epoch, so that a resumed run has the same one. Logged as
    ``policy/imagination_horizon``.

    Args:
        start: Horizon of the first epoch, at least 1.
        epochs: Number of epochs after which the full horizon is reached, at least 1.
        steps: Number of equal jumps in which it gets there, at least 1; None for a little in every epoch.

    Raises:
        ValueError: If an argument is below 1, or ``start`` above the module's horizon when training starts.
    """

    def __init__(self, start: int, epochs: int, steps: int | None = None) -> None:
        super().__init__(start)
        check_count(epochs=epochs)
        if steps is not None:
            check_count(steps=steps)
        self.epochs, self.steps = epochs, steps

    def horizon(self, epoch: int) -> int:
        """Return the horizon of an epoch."""
        assert self.full is not None
        done, parts = min(epoch, self.epochs), self.epochs
        if self.steps is not None:
            done, parts = done * self.steps // self.epochs, self.steps
        return self.start + (self.full - self.start) * done // parts

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # Not at the start of an epoch: Lightning skips that hook when it resumes within one.
        module = policy_module(pl_module, type(self).__name__)
        module.imagination_horizon = self.horizon(trainer.current_epoch)
        pl_module.log("policy/imagination_horizon", float(module.imagination_horizon), batch_size=1)
