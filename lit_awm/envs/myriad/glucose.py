"""Insulin against a high level of glucose (Lenhart & Workman, 2007, chapter 16; Eisen, 1988)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_awm.checks import check_at_least
from lit_awm.envs.ode import OdeEnv


class Glucose(OdeEnv):
    """Bring the glucose of the blood to a level with little insulin; a linear-quadratic problem.

    ``x_0' = -a x_0 - b x_1``, ``x_1' = -c x_1 + u`` and ``g = 100000 (A (x_0 - l)^2 + u^2)``. The factor of the cost is
    Myriad's. The control hardly matters at the default bounds.

    Args:
        a: Decay of glucose (1/day).
        b: Effect of the hormone on glucose (1/day).
        c: Decay of the hormone (1/day).
        A: Weight of the level against the insulin.
        l: Wanted level of glucose.
        x_0: Initial glucose and hormone.
        duration: Length of an episode (days).
        options: Discretisation, bounds and device, see :class:`~lit_awm.envs.ode.OdeEnv`.
    """

    name = "glucose"
    state_names = ("glucose", "hormone")
    control_names = ("insulin",)

    def __init__(
        self,
        a: float = 1.0,
        b: float = 1.0,
        c: float = 1.0,
        A: float = 2.0,
        l: float = 0.5,  # noqa: E741 - the published name
        x_0: Sequence[float] = (0.75, 0.0),
        duration: float = 0.2,
        **options: Any,
    ) -> None:
        check_at_least(0, a=a, b=b, c=c, A=A)
        super().__init__(
            initial_state=x_0, control_bounds=[(0, 0.01)], state_bounds=[(0, 1)] * 2, duration=duration, **options
        )
        self.a, self.b, self.c, self.A, self.l = a, b, c, A, l

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return the rates of change of glucose and hormone."""
        glucose, hormone = state.unbind(-1)
        return torch.stack([-self.a * glucose - self.b * hormone, control[..., 0] - self.c * hormone], dim=-1)

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return the weighted squares of the distance from the wanted level and of the insulin."""
        return 100_000 * (self.A * (state[..., 0] - self.l) ** 2 + control[..., 0] ** 2)
