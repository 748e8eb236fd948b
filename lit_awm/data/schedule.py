"""The loop over the phases of a module, within what the trainer allows."""

from __future__ import annotations

from collections.abc import Mapping

from lightning.pytorch import Trainer

from lit_awm.loops import AlternatingLoop, ExperienceSource


def make_loop(source: ExperienceSource, trainer: Trainer, updates: Mapping[str, int], turns: int) -> AlternatingLoop:
    """Return the loop that a trainer asks its data for.

    Raises:
        ValueError: If an option of the trainer cannot be met.
    """
    if trainer.precision not in ("32-true", "16-mixed", "bf16-mixed"):
        raise ValueError(
            "trainer.precision must be 32-true, 16-mixed or bf16-mixed, as environments are in single precision, "
            f"got {trainer.precision}."
        )
    if trainer.overfit_batches:  # type: ignore[attr-defined]
        raise ValueError("overfit_batches must be 0: every pass collects new experience. Use limit_train_batches.")
    limit = trainer.limit_train_batches
    if isinstance(limit, float):
        limit = int(limit * sum(updates.values()))
    return AlternatingLoop(source, updates, limit, turns)
