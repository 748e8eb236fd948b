"""Muon for matrices, Adam for everything else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

SMALLEST_MATRIX = 16
MOMENTUM = 0.95
QUINTIC = 3.4445, -4.7750, 2.0315  # of Jordan et al.: steep at zero, so that five steps are enough
STEPS = 5


@torch.no_grad()
def orthogonalize(matrix: Tensor) -> Tensor:
    """Return nearly the orthogonal matrix that is closest, by a Newton-Schulz iteration in the matrix's own precision.

    ``torch.optim.Muon`` iterates in bfloat16, which processors without instructions for it multiply several times more
    slowly than single precision.

    Args:
        matrix: What to make orthogonal, ``[rows, columns]``.

    Returns:
        A matrix of the same shape with the same singular vectors, and singular values between about 0.7 and 1.2 for
        those that were not negligible (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon).
    """
    a, b, c = QUINTIC
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


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
        super().__init__([{"params": hidden, "lr": lr}, *Adam(others, lr=adam_lr).param_groups], {})
        self._share()

    def _share(self) -> None:
        """Make an Adam that works on the state and a group of this optimizer, where schedulers look."""
        group = self.param_groups[1]
        self._adam = Adam(group["params"])
        self._adam.state, self._adam.param_groups = self.state, [group]

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
        self._step_matrices()
        self._adam.step()
        return loss

    @torch.no_grad()
    def _step_matrices(self) -> None:
        group = self.param_groups[0]
        for matrix in group["params"]:
            if matrix.grad is None:
                continue
            state = self.state[matrix]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(matrix.grad)
            momentum = state["momentum_buffer"].lerp_(matrix.grad, 1 - MOMENTUM)
            update = orthogonalize(matrix.grad.lerp(momentum, MOMENTUM))  # Nesterov's
            rows, columns = matrix.shape
            matrix.add_(update, alpha=-float(group["lr"]) * max(1.0, rows / columns) ** 0.5)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Go on from a state, when it is loaded, copied or unpickled."""
        super().__setstate__(state)
        self._share()
