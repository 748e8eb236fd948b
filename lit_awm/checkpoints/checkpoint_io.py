"""How Lightning reads and writes our checkpoints."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from lit_awm.checkpoints.experience_files import KEY, ExperienceFiles
from lit_awm.checkpoints.files import DamagedFileError, keep, pack, unpack, write_atomically

PREVIOUS = "-previous"  # the checkpoint that was there before, which is kept
DAMAGED = "-damaged"


class SafeCheckpointIO(CheckpointIO):
    """Write checkpoints so that a whole one is there at any moment; read them without running code from them.

    A checkpoint is written to a temporary file, synchronised with the disk, and renamed. The one that it takes the
    place of is kept beside it (``last-previous.ckpt``). Experience is in files of its own, in the folder ``experience``
    beside the checkpoint, of which each save adds what is new. A checkpoint that is cut short or damaged is named and
    skipped for the one before; it is never overwritten, but kept as ``last-damaged.ckpt``.

    To be given to a trainer: ``Trainer(plugins=[SafeCheckpointIO()])``.
    """

    def __init__(self) -> None:
        self._experience = ExperienceFiles()
        self._damaged: set[Path] = set()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            ValueError: If ``storage_options`` are given.
            OSError: If it cannot be written; the checkpoint that was there stays.
        """
        if storage_options is not None:
            raise ValueError(f"storage_options must be None for {type(self).__name__}, got {storage_options!r}.")
        path = Path(path)
        try:
            self._write(checkpoint, path)
        except OSError as error:
            told = f"{error.strerror}: {path} was not written; what had been saved before stays"
            raise OSError(error.errno, told) from error

    def _write(self, checkpoint: dict[str, Any], path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = {
            name: self._experience.store(value, path.parent) if _holds_experience(value) else value
            for name, value in checkpoint.items()
        }
        content = pack(stored)
        is_damaged = path.resolve() in self._damaged
        if path.is_file():
            keep(path, _free_name(path, DAMAGED) if is_damaged else path.with_stem(path.stem + PREVIOUS))
        write_atomically(path, content)
        self._damaged.discard(path.resolve())

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint, or the one before if it is damaged.

        Raises:
            DamagedFileError: If neither can be read; the message says of each why.
        """
        path = Path(path)
        loaded, problem = read_checkpoint(path, weights_only is not False, map_location or "cpu", self._experience)
        if problem:
            self._damaged |= {path.resolve()} if path.is_file() else set()
            rank_zero_warn(problem)
        return loaded

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove a checkpoint, and the one before that it has taken the place of."""
        for each in (Path(path), Path(path).with_stem(Path(path).stem + PREVIOUS)):
            each.unlink(missing_ok=True)


def read_checkpoint(
    path: Path, weights_only: bool = True, map_location: Any = "cpu", experience: ExperienceFiles | None = None
) -> tuple[dict[str, Any], str]:
    """Read a checkpoint, or the one before if it is damaged.

    Args:
        path: The checkpoint.
        weights_only: Whether to refuse whatever would run code.
        map_location: Where to put tensors.
        experience: What reads the experience that it refers to; None to leave that out.

    Returns:
        The checkpoint, and what is wrong with the one that was asked for; nothing if it is whole.

    Raises:
        DamagedFileError: If neither can be read; the message says of each why.
    """
    if not path.name:
        raise DamagedFileError(f"a checkpoint must be a file, got {str(path)!r}.")
    problems = list[str]()
    for candidate in (path, path.with_stem(path.stem + PREVIOUS)):
        try:
            loaded = unpack(candidate, weights_only, map_location)
            if not isinstance(loaded, dict):
                raise DamagedFileError(f"{candidate} is no checkpoint")
            if experience is not None:
                loaded = {
                    name: experience.restore(value, candidate.parent) if _holds_experience(value) else value
                    for name, value in loaded.items()
                }
        except DamagedFileError as error:
            problems.append(str(error))
            continue
        return loaded, f"{problems[0]}; going on from the checkpoint before, {candidate}." if problems else ""
    raise DamagedFileError(f"no checkpoint can be read: {'; '.join(problems)}.")


def _holds_experience(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get(KEY), list)


def _free_name(path: Path, mark: str) -> Path:
    """Return a name for a file to be put aside that is not taken."""
    count, found = 1, path.with_stem(path.stem + mark)
    while found.exists():
        count, found = count + 1, path.with_stem(f"{path.stem}{mark}-{count + 1}")
    return found
