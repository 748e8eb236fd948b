"""Compare the gradients through several world models with each other and with the truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor
from tqdm import tqdm

from lit_awm.analysis.gradients import Gradients, measure_gradients
from lit_awm.analysis.growth import Growth, fit_growth
from lit_awm.models import Policy, RewardFn, WorldModel

COLUMNS = ("policy_norm", "deviation", "signal_to_noise", "state_norm", "cosine", "norm_ratio")


class Subject(NamedTuple):
    """A world model under examination."""

    family: str
    is_fitted: bool
    world_model: WorldModel

    @property
    def label(self) -> str:
        """Name of the family and, if it is, that it is fresh."""
        return _label(self.family, self.is_fitted)


def _label(family: str, is_fitted: bool) -> str:
    return family if is_fitted else f"{family} (fresh)"


class Setting(NamedTuple):
    """What all subjects are examined with.

    Attributes:
        policy: The policy whose gradient is measured.
        initial_state: Initial states ``(B, S)``.
        state_scale: Units ``(S,)`` of states.
        truth: The simulator, if the environment's step is known.
        reward_fns: For each horizon the reward of a step; None for the world models' own.
        policy_input_gradient: Share of the gradient that passes through the states that the policy reads.
    """

    policy: Policy
    initial_state: Tensor
    state_scale: Tensor
    truth: WorldModel | None = None
    reward_fns: Mapping[int, RewardFn] | None = None
    policy_input_gradient: float = 0.0

    def measure(self, world_model: WorldModel, horizons: Sequence[int]) -> list[Gradients]:
        """Measure the gradients through a world model."""
        return measure_gradients(
            world_model,
            self.policy,
            self.initial_state,
            horizons,
            reward_fns=self.reward_fns,
            policy_input_gradient=self.policy_input_gradient,
            state_scale=self.state_scale,
        )


@dataclass
class GradientReport:
    """What was measured.

    Attributes:
        rows: One for each subject and horizon, with ``COLUMNS``; None where something is not defined.
        by_distance: For each subject, the norms of the gradients of actions at the longest horizon by distance from its
            end.
        growth: For each subject, how the policy gradient (``policy_norm``) and the last state's (``state_norm``) grow
            with the horizon, and the actions' gradient with distance (``distance``).
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    by_distance: dict[str, list[float | None]] = field(default_factory=dict)
    growth: dict[str, dict[str, Growth | None]] = field(default_factory=dict)

    def add(self, subject: Subject, measured: Sequence[Gradients], truth: Sequence[Gradients] | None) -> None:
        """Add what was measured of a subject; give the truth's gradients, if known, for the same horizons."""
        rows: list[dict[str, Any]] = []
        for index, gradients in enumerate(measured):
            cosine, ratio = gradients.fidelity(truth[index]) if truth is not None else (math.nan, math.nan)
            values = {
                "policy_norm": gradients.norm,
                "deviation": gradients.deviation,
                "signal_to_noise": gradients.signal_to_noise,
                "state_norm": None if gradients.state is None else gradients.state.mean().item(),
                "cosine": cosine,
                "norm_ratio": ratio,
            }
            finite = {
                name: value if value is not None and math.isfinite(value) else None for name, value in values.items()
            }
            rows.append({"family": subject.family, "fitted": subject.is_fitted, "horizon": gradients.horizon, **finite})
        self.rows += rows
        horizons = [row["horizon"] for row in rows]
        longest = [
            norm if math.isfinite(norm) else None
            for norm in max(measured, key=lambda gradients: gradients.horizon).by_distance().tolist()
        ]
        self.by_distance[subject.label] = longest
        self.growth[subject.label] = {
            name: fit_growth(horizons, [row[name] or 0.0 for row in rows]) for name in ("policy_norm", "state_norm")
        } | {"distance": fit_growth(range(1, len(longest) + 1), [norm or 0.0 for norm in longest])}

    def of(self, label: str) -> list[dict[str, Any]]:
        """Return the rows of a subject."""
        return [row for row in self.rows if _label(row["family"], row["fitted"]) == label]

    def as_dict(self) -> dict[str, Any]:
        """Return all of it in plain types, for JSON."""
        growth = {
            label: {
                name: None if fit is None else {**fit._asdict(), "winner": fit.winner} for name, fit in fits.items()
            }
            for label, fits in self.growth.items()
        }
        return {"rows": self.rows, "by_distance": self.by_distance, "growth": growth}

    def table(self) -> str:
        """Return the rows and the growth as text."""
        lines = [f"{'world model':<24}{'horizon':>8}" + "".join(f"{name:>17}" for name in COLUMNS)]
        for label in self.growth:
            for row in self.of(label):
                cells = ["-" if row[name] is None else f"{row[name]:.4g}" for name in COLUMNS]
                lines.append(f"{label:<24}{row['horizon']:>8}" + "".join(f"{cell:>17}" for cell in cells))
        lines.append(f"\n{'growth of the norm of':<24}" + "".join(f"{what:>42}" for what in GROWTHS.values()))
        for label, fits in self.growth.items():
            lines.append(f"{label:<24}" + "".join(f"{_describe(fits[name]):>42}" for name in GROWTHS))
        return "\n".join(lines)


GROWTHS = {
    "policy_norm": "the policy gradient with H",
    "state_norm": "the last state's gradient with H",
    "distance": "an action's gradient with distance",
}


def _describe(growth: Growth | None) -> str:
    if growth is None:
        return "-"
    return f"{growth.winner}: {growth.rate:.4g}^x or x^{growth.power:.3g}"


def compare_gradients(
    subjects: Sequence[Subject], setting: Setting, horizons: Sequence[int], progress: bool = False
) -> GradientReport:
    """Measure the gradients through every subject, and through the truth, where it is known, as ``simulator``."""
    report, truth = GradientReport(), None
    with tqdm(total=len(subjects) + (setting.truth is not None), disable=not progress, leave=False) as bar:
        if setting.truth is not None:
            bar.set_description("simulator")
            truth = setting.measure(setting.truth, horizons)
            report.add(Subject("simulator", True, setting.truth), truth, truth)
            bar.update()
        for subject in subjects:
            bar.set_description(subject.label)
            report.add(subject, setting.measure(subject.world_model, horizons), truth)
            bar.update()
    return report
