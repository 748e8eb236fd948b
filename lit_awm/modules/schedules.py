"""Learning-rate schedules for training in phases."""

from __future__ import annotations

import math

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class CosineRestarts(LRScheduler):
    """Fall from the optimizer's learning rate to zero along a cosine, again and again, each time after a warm-up.

    With one period per phase, every phase ends with a learning rate of zero, so that what it hands on has settled; the
    linear warm-up keeps Adam's first steps on new data from undoing what was learned.

    Args:
        optimizer: The optimizer.
        period: Number of updates from one restart to the next.
        warmup: Number of updates at the beginning of a period in which the rate rises from near zero, below ``period``.
        last_epoch: Number of the last update; -1 to start.

    Raises:
        ValueError: If ``period`` is below 1, or ``warmup`` negative or not below ``period``.
    """

    def __init__(self, optimizer: Optimizer, period: int, warmup: int = 0, last_epoch: int = -1) -> None:
        if period < 1 or not 0 <= warmup < period:
            raise ValueError(
                f"period must be at least 1 and warmup between 0 and period - 1, got {period} and {warmup}. "
                "In a recipe the period is the number of updates of a phase."
            )
        self.period, self.warmup = period, warmup
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rates of the next update."""
        position = self.last_epoch % self.period
        factor = 0.5 * (1 + math.cos(math.pi * position / self.period))
        if position < self.warmup:
            factor *= (position + 1) / (self.warmup + 1)
        return [base * factor for base in self.base_lrs]
