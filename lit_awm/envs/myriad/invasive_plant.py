"""Weeding of an invasive plant (Lenhart & Workman, 2007, chapter 24; Moody & Mack, 1988; Whittle et al., 2007)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_awm.checks import check_at_least, check_positive
from lit_awm.envs.ode import OdeEnv


class InvasivePlant(OdeEnv):
    """Weed five spots of an invasive plant year by year; a map in discrete time.

    With the radius ``x_j`` of a spot and the share ``u_j`` that is weeded::

        x_j[t+1] = (x_j + k x_j / (eps + x_j)) (1 - u_j)
        g        = B sum_j u_j^2        h = sum_j x_j(T)

    Args:
        B: Cost of weeding.
        k: Growth of a large spot in a step.
        eps: Radius at which growth is halved, positive.
        x_0: Initial radii of the five spots.
        episode_length: Number of steps.
        published: Whether to leave out the terminal cost ``h``, as Myriad does; doing nothing is then optimal.
        options: Bounds and device, see :class:`~lit_awm.envs.ode.OdeEnv`.
    """

    name = "invasive_plant"
    is_discrete = True
    fixed_options = ("dt", "integrator", "substeps")
    state_names = tuple(f"radius {j}" for j in range(1, 6))
    control_names = tuple(f"weeding {j}" for j in range(1, 6))

    def __init__(
        self,
        B: float = 1.0,
        k: float = 1.0,
        eps: float = 0.01,
        x_0: Sequence[float] = (0.5, 1.0, 1.5, 2.0, 10.0),
        episode_length: int = 10,
        published: bool = False,
        **options: Any,
    ) -> None:
        check_positive(eps=eps)
        check_at_least(0, B=B, k=k)
        super().__init__(
            initial_state=x_0,
            control_bounds=[(0, 1)] * 5,
            domain=[(-eps, math.inf)] * 5,
            duration=episode_length,
            episode_length=episode_length,
            **options,
        )
        self.B, self.k, self.eps, self.published = B, k, eps, published

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return the radii after growth and weeding."""
        return (state + self.k * state / (self.eps + state)) * (1 - control)

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return the cost of the weeding in a step."""
        return self.B * control.square().sum(-1)

    def terminal_cost(self, state: Tensor) -> Tensor:
        """Return the sum of the radii."""
        return torch.zeros_like(state[..., 0]) if self.published else state.sum(-1)
