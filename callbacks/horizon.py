"""What callbacks that set the imagination horizon share."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_awm.callbacks.policy_module import policy_module
from lit_awm.checks import check_count


class HorizonCallback(Callback):
    """Set the ``imagination_horizon`` during a fit, and give the module its own back when the fit has ended.

    Args:
        start: Least horizon, at least 1.

    Raises:
        ValueError: If ``start`` is below 1, or above the module's horizon when training starts.

    Attributes:
        full: The module's own horizon; None but in a fit.
    """

    def __init__(self, start: int) -> None:
        check_count(start=start)
        self.start = start
        self.full: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        module = policy_module(pl_module, type(self).__name__)
        if self.start > module.imagination_horizon:
            raise ValueError(
                f"start must not exceed the policy module's imagination_horizon {module.imagination_horizon}, got "
                f"{self.start}."
            )
        if stage == "fit":
            self.full = module.imagination_horizon

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.full is not None
        policy_module(pl_module, type(self).__name__).imagination_horizon = self.full
        self.full = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self.full is not None:
            self.on_fit_end(trainer, pl_module)
