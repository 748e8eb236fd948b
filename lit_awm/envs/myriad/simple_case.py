"""A first example of optimal control (Lenhart & Workman, 2007, chapter 5)."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from lit_awm.checks import check_positive
from lit_awm.envs.ode import OdeEnv


class SimpleCase(OdeEnv):
    """Raise the state with little control: ``x' = -x^2 / 2 + C u`` and ``g = -A x + B u^2``.

    The control is unbounded in the source; actions need a range, and the default contains the optimum.

    Args:
        A: Worth of the state.
        B: Cost of the control, positive.
        C: Effect of the control.
        x_0: Initial state.
        u_max: Largest control, positive; the range is ``[-u_max, u_max]``. A constant -2 sends the state to minus
            infinity in finite time.
        duration: Length of an episode.
        options: Discretisation, bounds and device, see :class:`~lit_awm.envs.ode.OdeEnv`.
    """

    name = "simple_case"
    state_names = ("x",)
    control_names = ("u",)

    def __init__(
        self,
        A: float = 1.0,
        B: float = 1.0,
        C: float = 4.0,
        x_0: float = 1.0,
        u_max: float = 2.0,
        duration: float = 1.0,
        **options: Any,
    ) -> None:
        check_positive(B=B, u_max=u_max)
        unbounded = (-math.inf, math.inf)
        options = {"control_bounds": [(-u_max, u_max)], "state_bounds": [unbounded], **options}
        super().__init__(initial_state=[x_0], duration=duration, **options)
        self.A, self.B, self.C = A, B, C

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return the rate of change of the state."""
        return self.C * control - state**2 / 2

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return the square of the control less the worth of the state."""
        return self.B * control[..., 0] ** 2 - self.A * state[..., 0]
