"""Film the policy."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from lit_awm.analysis.film import film
from lit_awm.analysis.trajectories import save_animation
from lit_awm.checkpoints.files import write_atomically
from lit_awm.checks import check_count, check_positive
from lit_awm.data import ExperienceDataModule
from lit_awm.data.generators import generator_states, set_generator_states
from lit_awm.modules import AlternatingModule

VIDEO = "policy"


class PolicyVideo(Callback):
    """Write ``policy.gif`` into the log directory: an episode of the policy, as ``lit-awm play`` shows it.

    It is made when training ends, and handed to the logger of wandb. An episode more in the real environment is played
    for it, which is neither counted nor learned from.

    Args:
        every: Evaluations from one film to the next; 0 for the last alone.
        frames: At most so many pictures, evenly over the episode.
        frames_per_second: How fast it is played.

    Raises:
        ValueError: If ``every`` is negative, ``frames`` is below 1 or ``frames_per_second`` is not positive.
    """

    def __init__(self, every: int = 0, frames: int = 50, frames_per_second: float = 15.0) -> None:
        check_count(0, every=every)
        check_count(1, frames=frames)
        check_positive(frames_per_second=frames_per_second)
        self.every, self.frames, self.frames_per_second = every, frames, frames_per_second
        self._count, self._made_after = 0, 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._count += not trainer.sanity_checking
        if self.every and not trainer.sanity_checking and self._count % self.every == 0:
            self._film(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._count or self._made_after != self._count:
            self._film(trainer, pl_module)

    def _film(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._made_after = self._count
        log_dir = trainer.log_dir  # a collective call
        data = trainer.datamodule  # type: ignore[attr-defined]
        if log_dir is None or not trainer.is_global_zero or not isinstance(data, ExperienceDataModule):
            return
        module: Any = pl_module
        world_model = module.policy.world_model if isinstance(module, AlternatingModule) else None
        states = generator_states()
        shown = film(data, module.behaviour_policy, world_model, self.frames)
        set_generator_states(states)
        path, content = Path(log_dir) / f"{VIDEO}.gif", io.BytesIO()
        save_animation(shown.images, content, self.frames_per_second, "GIF")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content.getvalue())
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_video(VIDEO, [str(path)], step=trainer.global_step, format=["gif"])
