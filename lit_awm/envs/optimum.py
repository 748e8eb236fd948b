"""What is known about the best possible control of a system, and the scores that compare with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeVar

from torch import Tensor

from lit_awm.envs.factory import default_options

Cost = TypeVar("Cost", float, Tensor)


@dataclass(frozen=True)
class Optimum:
    """The optimum of a system at its default parameters, 100 intervals and the ``rk4`` integrator.

    Written by ``benchmarks/optima.py``.

    Args:
        cost: Cost ``J*`` of the optimal controls.
        random_cost: Mean cost of uniformly random controls, drawn anew for every interval.
        constant_cost: Cost of the best constant control.
        constant_control: The best constant control, in physical units.
        controls: The optimal controls, one row per interval, in physical units.
    """

    cost: float
    random_cost: float
    constant_cost: float
    constant_control: list[float]
    controls: list[list[float]]

    def regret(self, cost: Cost) -> Cost:
        """Return ``(J - J*) / (J_random - J*)``: 0 is optimal, 1 as good as random controls."""
        return (cost - self.cost) / (self.random_cost - self.cost)

    def gap(self, cost: Cost) -> Cost | None:
        """Return ``(J - J*) / (J_constant - J*)``: 0 is optimal, 1 as good as the best constant control.

        None where a constant control is optimal, so that there is no gap to close.
        """
        room = self.constant_cost - self.cost
        return (cost - self.cost) / room if room > 1e-6 * abs(self.cost) else None


def load_optimum(system: str, **options: Any) -> Optimum | None:
    """Return the stored optimum of a system, or None if there is none for these options of ``make_env``."""
    defaults = default_options(system)
    if any(value != defaults[key] for key, value in options.items() if key not in ("device", "dtype")):
        return None
    stored = json.loads(files("lit_awm.envs.myriad").joinpath("optima.json").read_text(encoding="utf-8"))
    return Optimum(**stored[system]) if system in stored else None
