"""From any number to an action in [-1, 1]."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

NEARLY = 0.9999  # of the range, beyond which nothing is gained by going on


class Squash(torch.autograd.Function):
    """``tanh``, with a derivative that does not vanish.

    A saturated action hardly has a derivative: a policy that has once learned to do all or nothing stays there,
    whatever a world model learns afterwards. The derivative is therefore ``least_slope`` at least, in both directions,
    so that noise on actions does not push them away from an end that is best; but where an action has nearly reached
    the end and descent along the gradient leads further out it is that of ``tanh``, so that there is a way back.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, least_slope: float) -> Tensor:
        """Return ``tanh(value)``."""
        action = value.tanh()
        ctx.save_for_backward(action)
        ctx.least_slope = least_slope
        return action

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient with respect to ``value``."""
        (action,) = ctx.saved_tensors
        slope = 1 - action.square()
        has_room = (gradient * action > 0) | (action.abs() < NEARLY)
        return gradient * torch.where(has_room, slope.clamp(min=ctx.least_slope), slope), None
