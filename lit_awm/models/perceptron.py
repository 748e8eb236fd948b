"""The multilayer perceptron that policies, critics and Markovian models share."""

from __future__ import annotations

from itertools import pairwise

from torch import nn


def make_perceptron(sizes: list[int], out_features: int) -> nn.Sequential:
    """Return linear layers with SiLU between them; ``sizes`` are those of the input and of the hidden layers."""
    layers: list[nn.Module] = []
    for width, next_width in pairwise(sizes):
        layers += [nn.Linear(width, next_width), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], out_features))
