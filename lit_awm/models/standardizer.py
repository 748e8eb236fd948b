"""Standardisation that travels with a model."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Standardizer(nn.Module):
    """Shift and scale the last dimension to mean 0 and standard deviation 1 by statistics kept as buffers.

    Until ``fit`` is called it changes nothing. A component that does not vary in the data keeps its scale.

    Args:
        size: Size ``D`` of the last dimension.
    """

    mean: Tensor
    scale: Tensor
    is_fitted: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.register_buffer("is_fitted", torch.tensor(False))

    def fit(self, data: Tensor) -> None:
        """Take mean and standard deviation over all leading dimensions of ``(..., D)``."""
        rows = data.detach().reshape(-1, data.shape[-1]).double()
        mean, std = rows.mean(0), rows.std(0, correction=0)
        varies = std > 1e-6 * rows.abs().amax(0)
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(varies, std, torch.ones_like(std)))
        self.is_fitted.fill_(True)

    def forward(self, value: Tensor) -> Tensor:
        """Map raw ``(..., D)`` to standard units."""
        return (value - self.mean) / self.scale

    def inverse(self, value: Tensor) -> Tensor:
        """Map ``(..., D)`` in standard units back to raw ones."""
        return value * self.scale + self.mean
