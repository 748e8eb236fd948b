"""Chemotherapy of a tumour (Lenhart & Workman, 2007, chapter 10; Fister & Panetta, 2003)."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from lit_awm.checks import check_at_least
from lit_awm.envs.ode import OdeEnv


class CancerTreatment(OdeEnv):
    """Shrink a tumour with as little drug as possible.

    ``x' = r x ln(1 / x) - u delta x`` and ``g = a x^2 + u^2``, where ``x > 0`` is the normalised tumour density and
    ``u`` the strength of the drug.

    Args:
        r: Growth rate of the tumour (1/day).
        a: Weight of the tumour against the side effects of the drug.
        delta: Magnitude of the dose (1/day per unit of drug).
        x_0: Initial density, positive.
        duration: Length of the treatment (days).
        options: Batch size, discretisation and device, see :class:`~lit_awm.envs.ode.OdeEnv`.
    """

    name = "cancer_treatment"
    state_names = ("tumour density",)
    control_names = ("drug strength",)

    def __init__(
        self,
        r: float = 0.3,
        a: float = 3.0,
        delta: float = 0.45,
        x_0: float = 0.975,
        duration: float = 20.0,
        **options: Any,
    ) -> None:
        check_at_least(0, r=r, a=a, delta=delta)
        super().__init__(
            initial_state=[x_0],
            control_bounds=[(0, 2)],
            state_bounds=[(1e-3, 1)],
            domain=[(0, math.inf)],
            duration=duration,
            **options,
        )
        self.r, self.a, self.delta = r, a, delta

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return the rate of change of the tumour density."""
        return -self.r * state * state.log() - control * self.delta * state

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return the weighted sum of tumour and drug."""
        return self.a * state[..., 0] ** 2 + control[..., 0] ** 2
