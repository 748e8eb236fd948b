"""What is known about the best possible control of a system, and the scores that compare with it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, TypeVar

from torch import Tensor

from lit_awm.envs.factory import SYSTEMS, WHAT_IS_SEEN, describe_options

Cost = TypeVar("Cost", float, Tensor)


@dataclass(frozen=True)
class Optimum:
    """The optimum of a system with its default options, or with more and shorter steps: see ``benchmarks/optima.py``.

    It is that of the cost as the environment charges it: where the source has an end state, missing it is paid for.

    Args:
        cost: Cost ``J*`` of the optimal controls.
        random_cost: Mean cost of uniformly random controls, drawn anew for every interval.
        constant_cost: Cost of the best constant control.
        constant_control: The best constant control, in physical units.
        controls: The optimal controls, one row per interval, in physical units.
        costs: What was found from each start, in rising order.
        exact_target_cost: Least cost if the target is met exactly; None if there is no target, or with more steps.
        found: The command, the date and the versions that found it.
    """

    cost: float
    random_cost: float
    constant_cost: float
    constant_control: list[float]
    controls: list[list[float]]
    costs: list[float] = field(default_factory=list)
    exact_target_cost: float | None = None
    found: str = ""

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
    if system not in SYSTEMS:
        return None
    defaults = {option: described.default for option, described in describe_options(system).items()}
    length = options.get("episode_length", defaults["episode_length"])
    key = system if length == defaults["episode_length"] else f"{system}/{length}"
    for option in options.keys() - {"num_envs", "device", "dtype", "episode_length", *WHAT_IS_SEEN}:
        if option not in defaults or _plain(options[option]) != _plain(defaults[option]):
            return None
    stored = json.loads(files("lit_awm.envs").joinpath("optima.json").read_text(encoding="utf-8"))
    return Optimum(**stored[key]) if key in stored else None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
