"""Lengthen the imagined trajectories as training goes on."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_awm.checks import check_at_least
from lit_awm.modules import AlternatingModule, PolicyModule


class HorizonCurriculum(Callback):
    """Raise the ``imagination_horizon`` linearly with progress, from ``start`` to the module's own.

    The horizon is a pure function of the epoch, so that a resumed run has the same one. Logged as
    ``policy/imagination_horizon``.

    Args:
        start: Horizon of the first epoch, at least 1.
        epochs: Number of epochs after which the full horizon is reached, at least 1.

    Raises:
        ValueError: If an argument is below 1, or ``start`` above the module's horizon when training starts.
    """

    def __init__(self, start: int, epochs: int) -> None:
        check_at_least(1, start=start, epochs=epochs)
        self.start, self.epochs = start, epochs
        self.full: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        module = _policy_module(pl_module)
        self.full = module.imagination_horizon if self.full is None else self.full
        if self.start > self.full:
            raise ValueError(
                f"start must not exceed the policy module's imagination_horizon {self.full}, got {self.start}."
            )

    def horizon(self, epoch: int) -> int:
        """Return the horizon of an epoch."""
        assert self.full is not None
        return self.start + int((self.full - self.start) * min(epoch / self.epochs, 1.0))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # Not at the start of an epoch: Lightning skips that hook when it resumes within one.
        module = _policy_module(pl_module)
        module.imagination_horizon = self.horizon(trainer.current_epoch)
        pl_module.log("policy/imagination_horizon", float(module.imagination_horizon), batch_size=1)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.full is not None
        _policy_module(pl_module).imagination_horizon = self.full


def _policy_module(pl_module: LightningModule) -> PolicyModule:
    module = pl_module.policy if isinstance(pl_module, AlternatingModule) else pl_module
    if not isinstance(module, PolicyModule):
        raise ValueError(f"HorizonCurriculum needs a module that optimises a policy, got {type(module).__name__}.")
    return module
