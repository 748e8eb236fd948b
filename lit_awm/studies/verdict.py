"""What a study comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

MARGIN = 0.1


@dataclass
class Verdict:
    """What a study measured, and whether its claim holds.

    Attributes:
        name: Name of the study.
        claim: The claim, with its source.
        holds: Whether it holds, by the numbers in ``rows``.
        because: The numbers that decide.
        rows: All that was measured.
        figure: The figure.
    """

    name: str
    claim: str
    holds: bool
    because: str
    rows: list[dict[str, Any]]
    figure: Figure

    def as_dict(self) -> dict[str, Any]:
        """Return all but the figure in plain types, for JSON."""
        return {"name": self.name, "claim": self.claim, "holds": self.holds, "because": self.because, "rows": self.rows}


def is_better(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Tell whether our costs are below theirs by a tenth or more for most of the seeds.

    Args:
        ours: One for each seed; those below 0, as rounding makes of a regret, count as 0.
        theirs: Those of the same seeds.
    """
    wins = [max(our, 0) < (1 - MARGIN) * max(their, 0) for our, their in zip(ours, theirs, strict=True)]
    return sum(wins) > len(wins) / 2
