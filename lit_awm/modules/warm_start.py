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
        self.forget()

    def forget(self) -> None:
        """Begin anew: the world model has changed."""
        self.states: Tensor | None = None
        self.noise: Tensor | None = None
        self.deviation = 0.0  # of the noise
        self.residual = 0.0  # of the states
        self.effort = WINDOWS  # for the costates, of which nothing is known
        self.costates = CostateIteration()  # a new one, to which no earlier graph reports
        self.solutions = 0  # of it that have been judged
        self.said: dict[str, float] = {}  # of the costates, by the update before

    def fits(self, initial: Tensor, horizon: int) -> bool:
        """Tell whether an update from ``(B, S)`` over ``horizon`` steps can go on from the last one."""
        states = self.states
        return states is not None and states.shape[1] > horizon and torch.equal(states[:, 0].to(initial), initial)

    def noise_of(self, deviation: float) -> Tensor | None:
        """Return the noise of the last update with another standard deviation, which is 0 only if that was."""
        if self.noise is not None and deviation != self.deviation:
            self.noise, self.deviation = self.noise * (deviation / self.deviation), deviation
        return self.noise

    def prepare(self, initial: Tensor, closed_horizon: int | None) -> tuple[Method, dict[str, Any]]:
        """Return the method of the next update, and what ``imagine`` is to be given for it.

        Args:
            initial: The states to imagine from ``(B, S)``.
            closed_horizon: The horizon, if gradients pass through the states that the policy reads; else None.
        """
        refine = self.refine if self.residual > self.tolerance else 0
        previous = None if self.states is None else self.states.to(initial)
        options = {"previous_states": previous, "refine": refine, "tolerance": self.tolerance}
        if closed_horizon is None:
            return "warm", options
        solver, self.said = self.costates, {}
        if solver.costates is None or solver.costates.shape[1] != closed_horizon:
            self.effort, solver.costates = WINDOWS, None
        elif solver.solutions != self.solutions:  # there has been a backward pass
            self.effort = self._next_effort()
            self.said = {"costate_residual": solver.residual, "costate_passes": solver.passes}
        self.said["effort"] = float(self.effort)
        self.solutions = solver.solutions
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

    def take(self, imagined: Imagined, noise: Tensor | None, deviation: float, scale: Tensor) -> dict[str, Tensor]:
        """Keep what the next update can use, and return what is to be logged.

        What is said of the costates is from the update before, since they are known after its backward pass.
        """
        states = imagined.states.detach()
        is_first, self.states, self.noise, self.deviation = self.states is None, states, noise, deviation
        moved = ((states[:, :-1] - imagined.inputs) / scale).abs().amax()
        self.residual = moved.item()
        if is_first:
            return {}
        said = {"residual": moved, "refine_passes": float(imagined.passes), "has_decoded": float(imagined.has_decoded)}
        said |= self.said
        return {name: torch.as_tensor(value) for name, value in said.items()}

    def state(self) -> dict[str, Any]:
        """Return all that makes a resumed run go on exactly, in plain types and copies of tensors."""
        solver = self.costates
        return {
            "warm_states": _copy(self.states),
            "warm_noise": _copy(self.noise),
            "deviation": self.deviation,
            "residual": self.residual,
            "effort": self.effort,
            "costates": _copy(solver.costates),
            "costate_residual": solver.residual,
            "costate_passes": solver.passes,
            "is_judged": solver.solutions == self.solutions,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` returned."""
        self.forget()
        self.states, self.noise = _copy(state["warm_states"]), _copy(state["warm_noise"])
        self.deviation, self.residual, self.effort = state["deviation"], state["residual"], state["effort"]
        solver = self.costates
        solver.costates, solver.solutions = _copy(state["costates"]), int(not state["is_judged"])
        solver.residual, solver.passes = state["costate_residual"], state["costate_passes"]


def _copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.clone()
