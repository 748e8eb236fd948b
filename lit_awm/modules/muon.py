"""Muon for matrices, Adam for everything else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Adam, Muon, Optimizer

SMALLEST_MATRIX = 16


class MuonAdam(Optimizer):
    """Step the matrices of hidden layers by Muon and all other parameters by Adam.

    Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon) makes the update of a matrix orthogonal; a
    transformer learns trajectories in fewer updates with it than with Adam alone.

    Args:
        params: The parameters. Matrices count as hidden if both sides are at least 16, which leaves first and last
            layers to Adam.
        lr: Learning rate of Muon.
        adam_lr: Learning rate of Adam.

    Raises:
        ValueError: If a learning rate is not positive, or there is no hidden matrix or no other parameter.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float = 1e-2, adam_lr: float = 1e-3) -> None:
        if lr <= 0 or adam_lr <= 0:
            raise ValueError(f"lr and adam_lr must be positive, got {lr} and {adam_lr}.")
        params = list(params)
        is_hidden = [p.ndim == 2 and min(p.shape) >= SMALLEST_MATRIX for p in params]
        hidden = [p for p, chosen in zip(params, is_hidden, strict=True) if chosen]
        others = [p for p, chosen in zip(params, is_hidden, strict=True) if not chosen]
        if not hidden or not others:
            raise ValueError(
                f"params must hold matrices of at least {SMALLEST_MATRIX} by {SMALLEST_MATRIX} and other parameters, "
                f"got {len(hidden)} and {len(others)}. Use torch.optim.Adam for so small a model."
            )
        self._muon = Muon(hidden, lr=lr, weight_decay=0.0)
        self._adam = Adam(others, lr=adam_lr)
        super().__init__([*self._muon.param_groups, *self._adam.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let both parts work on the state and the groups of this optimizer, where schedulers and checkpoints look."""
        self._muon.state = self._adam.state = self.state
        self._muon.param_groups, self._adam.param_groups = self.param_groups[:1], self.param_groups[1:]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._muon.step()  # type: ignore[no-untyped-call]
        self._adam.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state that ``state_dict`` returned."""
        super().load_state_dict(state_dict)
        self._share()
