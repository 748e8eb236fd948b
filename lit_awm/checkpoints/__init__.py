"""Checkpoints that survive whatever happens while they are written, and runs that go on from them."""

from lit_awm.checkpoints.checkpoint_io import SafeCheckpointIO, read_checkpoint
from lit_awm.checkpoints.csv_log import ResumableCSVLogger
from lit_awm.checkpoints.files import DamagedFileError
from lit_awm.checkpoints.last_run import CONFIG_KEY, check_new, check_recipe, flatten, go_on_with_last_run
from lit_awm.checkpoints.run_folder import RECIPE, run_folder

__all__ = [
    "CONFIG_KEY",
    "RECIPE",
    "DamagedFileError",
    "ResumableCSVLogger",
    "SafeCheckpointIO",
    "check_new",
    "check_recipe",
    "flatten",
    "go_on_with_last_run",
    "read_checkpoint",
    "run_folder",
]
