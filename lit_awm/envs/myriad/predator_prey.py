"""Pesticide against prey and predator (Lenhart & Workman, 2007, chapter 22; Goh, Leitmann & Vincent, 1974)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_awm.checks import check_at_least, check_positive
from lit_awm.envs.ode import OdeEnv


class PredatorPrey(OdeEnv):
    """Use up a given amount of pesticide, which kills predators too, so that few pests are left at the end.

    With the prey ``x_0`` (the pest), the predator ``x_1`` and the pesticide ``x_2`` used so far::

        x_0' = (1 - x_1) x_0 - d_1 x_0 u        x_1' = (x_0 - 1) x_1 - d_2 x_1 u        x_2' = u
        g    = A / 2 u^2                        h = x_0(T)                              x_2(T) = B

    Args:
        d_1: Effect of the pesticide on the prey.
        d_2: Effect of the pesticide on the predator.
        A: Weight of the pesticide.
        B: Pesticide to be used in all, positive.
        M: Largest rate of pesticide, positive.
        x_0: Initial prey, predator and pesticide.
        duration: Length of an episode.
        target_weight: Cost of missing ``B`` by 1.
        options: Discretisation, bounds and device, see :class:`~lit_awm.envs.ode.OdeEnv`.

    Raises:
        ValueError: If ``bounds`` is ``"clip"``, which would hide pesticide beyond ``B``.
    """

    name = "predator_prey"
    state_names = ("prey", "predator", "pesticide so far")
    control_names = ("pesticide rate",)

    def __init__(
        self,
        d_1: float = 0.1,
        d_2: float = 0.1,
        A: float = 1.0,
        B: float = 5.0,
        M: float = 1.0,
        x_0: Sequence[float] = (10.0, 1.0, 0.0),
        duration: float = 10.0,
        target_weight: float = 10.0,
        **options: Any,
    ) -> None:
        check_at_least(0, d_1=d_1, d_2=d_2, A=A)
        check_positive(B=B, M=M)
        if options.get("bounds") == "clip":
            raise ValueError("bounds must be 'charge' or 'ignore': clipping would hide pesticide beyond B, got 'clip'.")
        super().__init__(
            initial_state=x_0,
            control_bounds=[(0, M)],
            state_bounds=[(0, 11), (0, 11), (0, B)],
            target_state=(math.nan, math.nan, B),
            target_weight=target_weight,
            duration=duration,
            **options,
        )
        self.d_1, self.d_2, self.A = d_1, d_2, A

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return the rates of change of prey, predator and pesticide."""
        (prey, predator, _), pesticide = state.unbind(-1), control[..., 0]
        prey_rate = (1 - predator) * prey - self.d_1 * prey * pesticide
        predator_rate = (prey - 1) * predator - self.d_2 * predator * pesticide
        return torch.stack([prey_rate, predator_rate, pesticide], dim=-1)

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return half the weighted square of the pesticide."""
        return self.A / 2 * control[..., 0] ** 2

    def terminal_cost(self, state: Tensor) -> Tensor:
        """Return the prey that is left."""
        return state[..., 0]
