"""Draw what the policy does in the real environment beside what would be optimal and what the world model imagines."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from tensordict import TensorDict

from lit_awm.analysis.trajectories import draw_trajectory, imagine_states
from lit_awm.checkpoints import run_folder
from lit_awm.checkpoints.files import write_beside_log
from lit_awm.checks import check_count

FIGURE = "trajectory"


class TrajectoryFigure(Callback):
    """Write ``trajectory.png`` into the folder of the run: states and controls of the last evaluation, and the best.

    What the world model imagines for the same actions is dotted. The figure is drawn anew as training goes on, from
    an evaluation that a data module of ours made, and handed to the loggers of wandb and TensorBoard.

    Args:
        every: Evaluations from one figure to the next; the last one of all is always drawn. 0 for that alone.

    Raises:
        ValueError: If ``every`` is negative.
    """

    def __init__(self, every: int = 1) -> None:
        check_count(0, every=every)
        self.every = every
        self._evaluation: TensorDict | None = None
        self._is_drawn, self._count = False, 0

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        if isinstance(batch, TensorDict) and "episode" in batch.keys():
            self._evaluation, self._is_drawn = batch, False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._count += not trainer.sanity_checking
        is_time = bool(self.every) and self._count % self.every == 0 and not trainer.sanity_checking
        if trainer.state.fn == "validate":
            is_time = trainer.logger is not None  # else there is no folder for it
        if is_time:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, pl_module)

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = run_folder(trainer)  # a collective call
        if self._evaluation is None or self._is_drawn or folder is None or not trainer.is_global_zero:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        imagined = imagine_states(pl_module, self._evaluation)
        figure = draw_trajectory(data.eval_env, self._evaluation, data.optimum, imagined=imagined)
        path, image = folder / f"{FIGURE}.png", io.BytesIO()
        figure.savefig(image, dpi=120)
        write_beside_log(path, image.getvalue())
        self._hand_out(trainer, figure, path)
        self._is_drawn = True

    @staticmethod
    def _hand_out(trainer: Trainer, figure: Figure, path: Path) -> None:
        """Give the figure to the loggers that show figures."""
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(FIGURE, [str(path)], step=trainer.global_step)
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.add_figure(FIGURE, figure, trainer.global_step)
