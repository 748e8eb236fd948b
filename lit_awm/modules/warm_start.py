"""What warm imagination takes along from update to update, and how much it does to be near enough.

Shape legend: ``B`` batch, ``H`` horizon, ``S`` state size, ``A`` action size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_awm.costates import EXACT_WINDOW, CostateIteration
from lit_awm.imagination import Imagined, Method

PASSES, WINDOWS, SEQUENTIAL = range(3)
MOST_PASSES = 8.0  # through a whole horizon, above which a graph of steps is not dearer


class WarmStart:
    """States, noise and costates of the last update, and the decision how to do the next one.

    One pass an update is enough as long as states and costates change little in it. Where the states changed by more
    than ``tolerance`` the next update first refines them, and decodes them if that does not bring them nearer. Where
    the costates did, the next update solves for them in windows; where that takes ``MOST_PASSES`` or is not finite,
    updates are sequential until the world model has changed.

    Args:
        tolerance: Largest change in a pass: of states in standard deviations, of costates relative to their size.
        refine: The most passes by which states are refined.
    """

    def __init__(self, tolerance: float, refine: int) -> None:
        self.tolerance, self.refine = tolerance, refine
        self.costates = CostateIteration()
        self.forget()

    def forget(self) -> None:
        """Begin anew: the world model has changed."""
        self.states: Tensor | None = None
        self.noise: Tensor | None = None
        self.residual = 0.0  # of the states
        self.effort = WINDOWS  # for the costates, of which nothing is known
        self.costates.costates = None
        self.said: dict[str, float] = {}  # of the costates, by the update before

    def fits(self, initial: Tensor, horizon: int) -> bool:
        """Tell whether an update from ``(B, S)`` over ``horizon`` steps can go on from the last one."""
        states = self.states
        return states is not None and states.shape[1] > horizon and torch.equal(states[:, 0].to(initial), initial)

    def prepare(self, closed_horizon: int | None) -> tuple[Method, dict[str, Any]]:
        """Return the method of the next update, and what ``imagine`` is to be given for it.

        Args:
            closed_horizon: The horizon, if gradients pass through the states that the policy reads; else None.
        """
        refine = self.refine if self.residual > self.tolerance else 0
        options = {"previous_states": self.states, "refine": refine, "tolerance": self.tolerance}
        if closed_horizon is None:
            return "warm", options
        solver = self.costates
        self.said = {"costate_residual": solver.residual, "costate_passes": solver.passes}
        if solver.costates is None or solver.costates.shape[1] != closed_horizon:
            self.effort, solver.costates = WINDOWS, None
        else:
            self.effort = self._next_effort()
        if self.effort == SEQUENTIAL:
            return "sequential", {}
        is_solving = self.effort == WINDOWS
        solver.window, solver.tolerance = (EXACT_WINDOW if is_solving else None), self.tolerance
        solver.max_passes = None if is_solving else 0
        return "warm", {"costates": solver, **options}

    def _next_effort(self) -> int:
        """Return what to do after the last update, whose backward pass told how far the costates moved."""
        moved_little = self.costates.residual <= self.tolerance
        if self.effort == PASSES:
            return PASSES if moved_little else WINDOWS
        has_failed = not moved_little or self.costates.passes >= MOST_PASSES
        return SEQUENTIAL if has_failed or self.effort == SEQUENTIAL else PASSES

    def take(self, imagined: Imagined, noise: Tensor | None, scale: Tensor) -> dict[str, Tensor]:
        """Keep what the next update can use, and return what is to be logged.

        What is said of the costates is from the update before, since they are known after its backward pass.
        """
        states = imagined.states.detach()
        is_first, self.states, self.noise = self.states is None, states, noise
        moved = ((states[:, :-1] - imagined.inputs) / scale).abs().amax()
        self.residual = moved.item()
        if is_first:
            return {}
        said = {"residual": moved, "refine_passes": float(imagined.passes), "has_decoded": float(imagined.has_decoded)}
        if self.said:
            said |= self.said | {"effort": float(self.effort)}
        return {name: torch.as_tensor(value) for name, value in said.items()}

    def state(self) -> dict[str, Any]:
        """Return all that makes a resumed run go on exactly, in plain types and tensors."""
        solver = self.costates
        return {
            "warm_states": self.states,
            "warm_noise": self.noise,
            "residual": self.residual,
            "effort": self.effort,
            "costates": solver.costates,
            "costate_residual": solver.residual,
            "costate_passes": solver.passes,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` returned."""
        self.states, self.noise = state["warm_states"], state["warm_noise"]
        self.residual, self.effort = state["residual"], state["effort"]
        solver = self.costates
        solver.costates, solver.residual, solver.passes = (
            state["costates"],
            state["costate_residual"],
            state["costate_passes"],
        )
