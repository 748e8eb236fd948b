"""The latest metrics of each phase of a loop, to log them together."""

from __future__ import annotations

from lightning.pytorch import LightningModule
from torch import Tensor


class LatestMetrics:
    """What each phase last measured: a row of the log holds all of it, whichever phase the row is written in.

    It belongs in a checkpoint, since a run that goes on within an epoch logs what was measured before.
    """

    def __init__(self) -> None:
        self._by_phase: dict[str, dict[str, Tensor]] = {}

    def update(self, phase: str, metrics: dict[str, Tensor]) -> None:
        """Keep what a phase has measured, scalars by their names in the log; others of the phase keep their value."""
        self._by_phase[phase] = self._by_phase.get(phase, {}) | metrics

    def log(self, module: LightningModule, batch_size: int, sync_dist: bool = False) -> None:
        """Log the metrics of all phases."""
        for metrics in self._by_phase.values():  # a checkpoint brings them on the CPU
            here = {name: value.to(module.device) for name, value in metrics.items()}
            module.log_dict(here, batch_size=batch_size, sync_dist=sync_dist)

    def clear(self) -> None:
        """Forget everything, for a new epoch."""
        self._by_phase.clear()

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Return copies of the metrics, by phase and name."""
        return {
            phase: {name: value.detach().clone() for name, value in metrics.items()}
            for phase, metrics in self._by_phase.items()
        }

    def load_state_dict(self, state_dict: dict[str, dict[str, Tensor]]) -> None:
        """Go on from what ``state_dict`` returned."""
        self._by_phase = {phase: dict(metrics) for phase, metrics in state_dict.items()}
