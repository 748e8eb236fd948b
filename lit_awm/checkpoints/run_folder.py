"""Where the files of a run lie."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

RECIPE = "lit_awm_config.yaml"  # in the folder of a run


def run_folder(trainer: Trainer) -> Path | None:
    """Return the folder of a run, in which its checkpoints lie too; None if the logger, as in a dry run, keeps nothing.

    It is that of the log. A logger that keeps its log elsewhere, as wandb does, has one by name and version; without a
    logger it is the trainer's. To be called in all processes, since they agree on it.
    """
    if (log_dir := trainer.log_dir) is None:
        return None
    folder, logger = Path(log_dir), trainer.logger
    if logger is None or isinstance(logger, CSVLogger | TensorBoardLogger):
        return folder
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return folder / str(logger.name) / str(trainer.strategy.broadcast(version))
