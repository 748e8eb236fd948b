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
        params: The parameters. Matrices count as hidden if both sides are at least 16, which leaves narrow first and
            last layers to Adam.
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
        parts = Muon(hidden, lr=lr, weight_decay=0.0), Adam(others, lr=adam_lr)
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Make two parts that work on the state and the groups of this optimizer, where schedulers look."""
        muon, adam = self.param_groups
        self._muon, self._adam = Muon(muon["params"]), Adam(adam["params"])
        self._muon.state = self._adam.state = self.state
        self._muon.param_groups, self._adam.param_groups = [muon], [adam]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refuse more than the two groups of the constructor.

        Raises:
            ValueError: If a further group is added.
        """
        if len(self.param_groups) == 2:
            raise ValueError("MuonAdam must have two groups, of Muon and of Adam. Give all parameters when it is made.")
        super().add_param_group(param_group)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._muon.step()  # type: ignore[no-untyped-call]
        self._adam.step()
        return loss

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Go on from a state, when it is loaded, copied or unpickled."""
        super().__setstate__(state)
        self._share()
