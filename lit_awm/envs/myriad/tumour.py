"""Anti-angiogenic therapy of a tumour (Ledzewicz & Schaettler, 2007; Betts, Practical Methods, 3rd ed., 10.70)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_awm.checks import check_at_least, check_positive
from lit_awm.envs.ode import BoundRule, OdeEnv


class Tumour(OdeEnv):
    """Shrink a tumour by starving its blood vessels, with a limited amount of drug.

    With the tumour's volume ``p``, its vascular capacity ``q`` and the dose ``y`` so far::

        p' = -xi p ln(p / q)        q' = q (b - mu - d p^(2/3) - G u)        y' = u
        h  = p(T)

    The dose is limited to ``A`` by the bounds of ``y``, which are charged for unless ``bounds`` says otherwise.

    Args:
        xi: Growth rate of the tumour (1/day).
        b: Growth rate of the vessels (1/day), above ``mu``.
        d: Death rate of the vessels by the tumour (1/(mm^2 day)), positive.
        G: Effect of the drug (kg per mg of dose and day).
        mu: Death rate of the vessels (1/day).
        a: Largest dose rate, positive.
        A: Largest dose in all, positive.
        x_0: Initial state; None for half of the equilibrium volume, a quarter of it as capacity, and no dose.
        duration: Length of the treatment (days).
        bounds: ``"charge"`` for doses beyond ``A``, or ``"ignore"`` the state bounds.
        bound_weight: Cost of a dose that exceeds ``A`` by as much again; less by share.
        exit_cost: Cost of a step that leaves the domain.
        options: Discretisation and device, see :class:`~lit_awm.envs.ode.OdeEnv`.

    Raises:
        ValueError: If ``bounds`` is ``"clip"``, which would hide a dose beyond ``A`` instead of limiting it.
    """

    name = "tumour"
    state_names = ("tumour volume", "vascular capacity", "dose so far")
    control_names = ("dose rate",)

    def __init__(
        self,
        xi: float = 0.084,
        b: float = 5.85,
        d: float = 0.00873,
        G: float = 0.15,
        mu: float = 0.02,
        a: float = 75.0,
        A: float = 15.0,
        x_0: Sequence[float] | None = None,
        duration: float = 1.2,
        bounds: BoundRule = "charge",
        bound_weight: float = 5000.0,
        exit_cost: float = 1e5,
        **options: Any,
    ) -> None:
        check_at_least(0, xi=xi, G=G, mu=mu)
        check_positive(d=d, a=a, A=A, **{"b - mu": b - mu})
        if bounds == "clip":
            raise ValueError("bounds must be 'charge' or 'ignore': clipping would hide a dose beyond A, got 'clip'.")
        equilibrium = ((b - mu) / d) ** 1.5
        super().__init__(
            initial_state=(equilibrium / 2, equilibrium / 4, 0) if x_0 is None else x_0,
            control_bounds=[(0, a)],
            state_bounds=[(0, equilibrium), (0, equilibrium), (0, A)],
            domain=[(0, math.inf), (0, math.inf), (-math.inf, math.inf)],
            duration=duration,
            bounds=bounds,
            bound_weight=bound_weight,
            exit_cost=exit_cost,
            **options,
        )
        self.xi, self.b, self.d, self.G, self.mu = xi, b, d, G, mu

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return the rates of change of volume, capacity and dose."""
        volume, capacity, _ = state.unbind(-1)
        dose = control[..., 0]
        growth = -self.xi * volume * (volume / capacity).log()
        vessels = capacity * (self.b - self.mu - self.d * volume ** (2 / 3) - self.G * dose)
        return torch.stack([growth, vessels, dose], dim=-1)

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return zero: only the end counts."""
        return torch.zeros_like(state[..., 0])

    def terminal_cost(self, state: Tensor) -> Tensor:
        """Return the volume of the tumour."""
        return state[..., 0]
