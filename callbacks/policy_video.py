"""Film the policy."""

from __future__ import annotations

import io
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_warn

from lit_awm.analysis.film import film
from lit_awm.analysis.trajectories import save_animation
from lit_awm.checkpoints import run_folder
from lit_awm.checkpoints.files import write_beside_log
from lit_awm.checks import check_count, check_positive
from lit_awm.data import ExperienceDataModule
from lit_awm.data.generators import generator_states, set_generator_states

VIDEO = "policy"


class PolicyVideo(Callback):
    """Write ``policy.gif`` into the folder of the run: an episode of the policy, as ``lit-awm play`` shows it.

    It is made when training ends, and handed to the logger of wandb. An episode more in the real environment of an
    :class:`~lit_awm.data.ExperienceDataModule` is played for it, which is neither counted nor learned from. Where there
    is no such data module or no policy, or a task's package cannot draw on this machine, a warning says so.

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
        self._count, self._made_after, self._can_film = 0, -1, False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._count, self._made_after = 0, -1
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._can_film = isinstance(data, ExperienceDataModule) and hasattr(pl_module, "behaviour_policy")
        if not self._can_film:
            rank_zero_warn("PolicyVideo films the policy in an ExperienceDataModule's environment; there is none here.")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self._count += 1
        if self.every and self._count % self.every == 0:
            self._film(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._made_after != self._count:
            self._film(trainer, pl_module)

    def _film(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._made_after = self._count
        folder = run_folder(trainer)  # a collective call
        if folder is None or not trainer.is_global_zero or not self._can_film:
            return
        module: Any = pl_module
        states = generator_states()
        shown = film(trainer.datamodule, module, self.frames)  # type: ignore[attr-defined]
        set_generator_states(states)
        if shown.problem:
            rank_zero_warn(f"PolicyVideo shows curves, since the task cannot be drawn here: {shown.problem}")
        path, content = folder / f"{VIDEO}.gif", io.BytesIO()
        save_animation(shown.images, content, self.frames_per_second, "GIF")
        write_beside_log(path, content.getvalue())
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_video(VIDEO, [str(path)], step=trainer.global_step, format=["gif"])
