"""From any number to an action in [-1, 1]."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Squash(torch.autograd.Function):
    """``tanh``, with a derivative that does not vanish where a gradient leads back.

    A saturated action hardly has a derivative: a policy that has once learned to do all or nothing stays there,
    whatever a world model learns afterwards. Where descent along the gradient makes the action less extreme the
    derivative is therefore ``least_slope`` at least; where it leads further out it is that of ``tanh``.
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
        return gradient * torch.where(gradient * action > 0, slope.clamp(min=ctx.least_slope), slope), None
