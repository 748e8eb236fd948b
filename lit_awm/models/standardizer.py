"""Standardisation that travels with a model.

Shape legend: ``B`` batch, ``H`` horizon, ``D`` size of what is standardised.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

ROUNDING = 2e-6  # of the largest value of a sequence, below which a difference in single precision may be rounding
COLLAPSED = 1e-6  # of the spread at an earlier step, below which all sequences are at the same place
LEAST_SHARE = 1e-8  # of the spread over all steps, that of a step counts as
TAIL = 8  # one in how many sequences is set aside where it would decide
HEAVY = 3.0  # times the deviation of the rest, beyond which it would


class Standardizer(nn.Module):
    """Shift and scale the last dimension to mean 0 and standard deviation 1 by statistics kept as buffers.

    Until ``fit`` is called it changes nothing. A component that does not vary in the data keeps its scale. One that is
    ``ignored`` is 0 in standard units, whatever it is.

    Args:
        size: Size ``D`` of the last dimension.
    """

    mean: Tensor
    scale: Tensor
    is_fitted: Tensor
    ignored: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.register_buffer("is_fitted", torch.tensor(False))
        self.register_buffer("ignored", torch.zeros(size, dtype=torch.bool))

    def fit(self, data: Tensor) -> None:
        """Take mean and standard deviation over all leading dimensions of ``(..., D)``."""
        rows = data.detach().reshape(-1, data.shape[-1]).double()
        mean, std = rows.mean(0), rows.std(0, correction=0)
        varies = std > 1e-6 * rows.abs().median(0).values
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(varies, std, torch.ones_like(std)))
        self.is_fitted.fill_(True)

    def forward(self, value: Tensor) -> Tensor:
        """Map raw ``(..., D)`` to standard units."""
        return ((value - self.mean) / self.scale).masked_fill(self.ignored, 0)

    def inverse(self, value: Tensor) -> Tensor:
        """Map ``(..., D)`` in standard units back to raw ones."""
        return value * self.scale + self.mean

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        state_dict.setdefault(f"{prefix}ignored", torch.zeros_like(self.ignored))  # of before there was any
        super()._load_from_state_dict(state_dict, prefix, *args)


class DriftStandardizer(nn.Module):
    """Standardise the displacement from the first state of a sequence, step by step.

    Sequences that begin alike have much in common. At each step their mean is subtracted; what is left is what actions
    have done, which grows from step to step. It is divided by the geometric mean of its standard deviation at that step
    and of that over all steps.

    - Steps beyond those of the data count as the last of them.
    - Where all sequences meet at a step, the largest deviation before it is taken: others need not meet.
    - If all sequences are identical, no mean is subtracted.
    - A component that does not differ between sequences, such as where a goal lies, gets a tiny scale, so that it
      hardly moves by what is predicted; its errors are measured by how much it varies between states.

    Until ``fit`` is called it changes nothing.

    Args:
        size: Size ``D`` of the last dimension.
    """

    mean: Tensor
    scale: Tensor
    spread: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, size))
        self.register_buffer("scale", torch.ones(1, size))
        self.register_buffer("spread", torch.ones(size))

    def fit(self, data: Tensor) -> None:
        """Take the mean of each step, and the standard deviation from it, over sequences ``(B, H, D)``."""
        rows = data.detach().double()
        drift = (rows - rows[:, :1])[:, min(1, rows.shape[1] - 1) :]
        least = ROUNDING * typical_magnitude(rows)
        drift = set_aside(drift, by_step=True)
        mean = drift.mean(0)
        by_step = (drift - mean).square().mean(0).sqrt()
        if not (by_step > least).any():  # identical sequences, or a single one, tell nothing about actions
            mean, by_step = torch.zeros_like(mean), drift.flatten(0, 1).std(0, correction=0).expand_as(mean)
        spread = by_step.square().mean(0).sqrt()
        varies, least = spread > least, torch.where(least > 0, least, 1.0)
        by_itself = set_aside(rows).flatten(0, 1).std(0, correction=0).clamp(min=least)
        self.mean, self.spread = mean.to(self.mean), torch.where(varies, spread, by_itself).to(self.spread)
        before = by_step.cummax(0).values
        by_step = torch.where(by_step < COLLAPSED * before, before, by_step)
        scale = (by_step.clamp(min=LEAST_SHARE * spread) * spread).sqrt()
        self.scale = torch.where(varies, scale, least).to(self.scale)

    def inverse(self, value: Tensor, steps: Tensor) -> Tensor:
        """Map ``(..., H, D)`` in standard units back to raw ones; entry ``h`` is ``steps[h]``, at least 1, later."""
        rows = (steps - 1).clamp(max=len(self.mean) - 1)
        return value * self.scale[rows] + self.mean[rows]

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for name, buffer in self.named_buffers():
            if (loaded := state_dict.get(prefix + name)) is not None:  # of as many steps as there are
                setattr(self, name, buffer.new_empty(loaded.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


def typical_magnitude(sequences: Tensor) -> Tensor:
    """Return the largest value in absolute terms ``(D,)`` of a typical one of the sequences ``(B, H, D)``."""
    return sequences.abs().amax(1).median(0).values


def set_aside(sequences: Tensor, by_step: bool = False) -> Tensor:
    """Return sequences ``(B, H, D)`` in double precision, with outlying ones, as of an episode that diverges, clipped.

    Values further from the median than seven eighths of the sequences ever are count as being as far as these, if they
    would make the root of the mean squared deviation more than three times as large.

    Args:
        sequences: ``(B, H, D)``.
        by_step: Whether the median is that of each step.
    """
    sequences = sequences.detach().double()
    centre = (sequences if by_step else sequences.flatten(0, 1)).median(0).values
    distance = sequences - centre
    limit = distance.abs().amax(1).sort(0).values[-1 - len(sequences) // TAIL]
    kept = distance.clamp(-limit, limit)
    size, kept_size = (each.square().mean((0, 1)).sqrt() for each in (distance, kept))
    return torch.where((size > HEAVY * kept_size) & (kept_size > 0), centre + kept, sequences)
