"""Schedules: of learning rates for training in phases, and of weights."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lit_awm.checks import check_at_least, check_count, check_finite, check_share


class CosineRestarts(LRScheduler):
    """Fall from the optimizer's learning rate almost to zero along a cosine, again and again, each after a warm-up.

    With one period per phase, every phase ends with small steps, so that what it hands on has settled; the linear
    warm-up keeps Adam's first steps on new data from undoing what was learned.

    Args:
        optimizer: The optimizer.
        period: Number of updates from one restart to the next.
        warmup: Share in [0, 1) of a period in which the rate rises from near zero.
        decay: Factor in (0, 1] by which every restart begins lower than the one before; below 1 later phases
            refine what earlier ones have found.
        over: Number of restarts that it takes for ``decay`` to come about: that of a whole run, for a rate that is
            lower by ``decay`` in the end however long the run is. A run that is resumed may have another.
        last_epoch: Number of the last update; -1 to start.

    Raises:
        ValueError: If ``period`` or ``over`` is below 1, ``warmup`` outside [0, 1), or ``decay`` outside (0, 1].
    """

    def __init__(
        self,
        optimizer: Optimizer,
        period: int,
        warmup: float = 0.0,
        decay: float = 1.0,
        over: int = 1,
        last_epoch: int = -1,
    ) -> None:
        _check_steps(period, over)
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup must be a share of the period, at least 0 and below 1, got {warmup}.")
        check_share(decay=decay)
        self.period, self.warmup_updates, self.decay, self.over = period, int(warmup * period), decay, over
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rates of the next update."""
        restarts, position = divmod(self.last_epoch, self.period)
        factor = 0.5 * (1 + math.cos(math.pi * position / self.period)) * self.decay ** (restarts / self.over)
        if position < self.warmup_updates:
            factor *= (position + 1) / (self.warmup_updates + 1)
        return [base * factor for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return what it goes on from; ``over`` is no part of it, since a run that is resumed may be longer."""
        state: dict[str, Any] = super().state_dict()
        del state["over"]
        return state


class LinearSchedule:
    """A number that goes linearly from ``start`` to ``end`` within the first ``updates`` updates, and stays there.

    Args:
        start: Its first value.
        end: Its last value.
        updates: Number of updates between them, at least 1.

    Raises:
        ValueError: If ``updates`` is no whole number from 1 on, or a value is not finite.

    Example:
        >>> [LinearSchedule(1.0, 0.0, updates=4)(update) for update in (0, 1, 4, 9)]
        [1.0, 0.75, 0.0, 0.0]
    """

    def __init__(self, start: float, end: float, updates: int) -> None:
        check_count(updates=updates)
        check_finite(start=start, end=end)
        self.start, self.end, self.updates = start, end, updates

    def __call__(self, update: int) -> float:
        """Return the value for an update, counted from 0."""
        return self.start + (self.end - self.start) * min(update / self.updates, 1.0)

    @property
    def least(self) -> float:
        """The least value that it takes, or comes near to."""
        return min(self.start, self.end)


class DecaySchedule:
    """A number that becomes smaller after every ``period`` updates.

    Args:
        start: Its first value.
        decay: The factor, above 0 and at most 1.
        period: Number of updates from one step to the next, at least 1.
        over: Number of steps that it takes for ``decay`` to come about, see :class:`CosineRestarts`.

    Raises:
        ValueError: If ``period`` or ``over`` is no whole number from 1 on, ``decay`` outside (0, 1], or ``start`` not
            finite.

    Example:
        >>> [DecaySchedule(8.0, 0.5, period=3)(update) for update in (0, 2, 3, 6)]
        [8.0, 8.0, 4.0, 2.0]
        >>> [DecaySchedule(8.0, 0.25, period=3, over=2)(update) for update in (0, 2, 3, 6)]
        [8.0, 8.0, 4.0, 2.0]
    """

    def __init__(self, start: float, decay: float, period: int, over: int = 1) -> None:
        _check_steps(period, over)
        check_share(decay=decay)
        check_finite(start=start)
        self.start, self.decay, self.period, self.over = start, decay, period, over

    def __call__(self, update: int) -> float:
        """Return the value for an update, counted from 0."""
        return self.start * self.decay ** (update // self.period / self.over)

    @property
    def least(self) -> float:
        """The least value that it takes, or comes near to."""
        return min(self.start, 0.0)


Schedule = LinearSchedule | DecaySchedule


def value_at(value: float | Schedule, update: int) -> float:
    """Return a number that may have a schedule, as it is in an update, counted from 0."""
    return value(update) if isinstance(value, Schedule) else value


def _check_steps(period: int, over: int) -> None:
    check_count(period=period)
    try:
        check_count(over=over)
    except ValueError as error:
        hint = "Where a recipe takes it from `trainer.max_epochs`, as `gym` does, give that a number of iterations."
        raise ValueError(f"{error} {hint}") from None


def check_least(minimum: float, **values: float | Schedule) -> None:
    """Reject numbers, and schedules of them, that are or come to be below a minimum, or are not finite.

    Raises:
        ValueError: If one is; the message names it.
    """
    check_at_least(
        minimum, **{name: value.least if isinstance(value, Schedule) else value for name, value in values.items()}
    )
