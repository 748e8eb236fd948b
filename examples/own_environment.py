"""An environment of your own, by a recipe: ``cd examples; lit-awm fit --config common --config own_environment.yaml``.

A system is a state, its rate of change, and what that costs; all else (batches, integration, gradients, the oracle)
comes with it. A package offers its systems by name in its ``pyproject.toml``:
``[project.entry-points."lit_awm.environments"]``, ``water_tank = "my_package:WaterTank"``.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from lit_awm.envs.ode import OdeEnv


class WaterTank(OdeEnv):
    """Keep a leaking tank at a level with a pump that costs: ``x' = u - k sqrt(x)``, ``g = (x - 1)^2 + w u^2``.

    Args:
        k: How much it leaks (1/s).
        w: Weight of the pump's cost.
        duration: Length of an episode (s).
        options: Batch size, discretisation and device.
    """

    name = "water_tank"
    state_names = ("level",)
    control_names = ("inflow",)

    def __init__(self, k: float = 0.5, w: float = 0.1, duration: float = 10.0, **options: Any) -> None:
        super().__init__(
            initial_state=[0.2],
            control_bounds=[(0, 2)],
            state_bounds=[(0, 10)],
            domain=[(0, math.inf)],
            duration=duration,
            **options,
        )
        self.k, self.w = k, w

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return the rate of change of the level."""
        return control - self.k * state.clamp(min=1e-6).sqrt()

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return the cost per second."""
        return (state[..., 0] - 1) ** 2 + self.w * control[..., 0] ** 2
