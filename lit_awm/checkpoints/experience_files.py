"""Experience in files beside a checkpoint: each part is written once, however many checkpoints refer to it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from lit_awm.checkpoints.files import DamagedFileError, pack, unpack, write_atomically

FOLDER = "experience"
KEY = "experience"  # under which a state holds its list of segments, oldest first, each with its "first" row


class ExperienceFiles:
    """Replace the segments of experience in a state by the names of files, and back.

    A file holds the segments that were new when it was written. Its name holds a digest of its content, so that a file
    is never replaced by another one: a checkpoint refers to what there was when it was made, and nothing later.

    Attributes:
        written: Name of the file of each segment, by the folder and the row that it begins with.
    """

    def __init__(self) -> None:
        self.written: dict[tuple[Path, int], str] = {}

    def store(self, state: dict[str, Any], folder: Path) -> dict[str, Any]:
        """Return the state with names of files in place of segments; write those that are not yet written."""
        folder = folder.resolve() / FOLDER
        segments = state[KEY]
        new = [segment for segment in segments if not self._is_written(folder, segment["first"])]
        if new:
            content = pack(new)
            digest = hashlib.sha256(content).hexdigest()[:16]
            name = f"{new[0]['first']:010d}-{digest}.pt"
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / name, content)
            self.written |= {(folder, segment["first"]): name for segment in new}
        references = [{"first": each["first"], "file": self.written[folder, each["first"]]} for each in segments]
        return state | {KEY: references}

    def restore(self, state: dict[str, Any], folder: Path) -> dict[str, Any]:
        """Return the state with the segments that it refers to.

        Raises:
            DamagedFileError: If one of the files is not there, or not what it was.
        """
        if not any("file" in reference for reference in state[KEY]):
            return state  # they are in the checkpoint itself
        folder = folder.resolve() / FOLDER
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for name in {reference["file"] for reference in state[KEY]}:
            path = folder / name
            segments = unpack(path)
            if hashlib.sha256(path.read_bytes()).hexdigest()[:16] != path.stem.partition("-")[2]:
                raise DamagedFileError(f"{path} is not what it was when it was written")
            found |= {(name, segment["first"]): segment for segment in segments}
        self.written |= {(folder, each["first"]): each["file"] for each in state[KEY]}
        return state | {KEY: [found[each["file"], each["first"]] for each in state[KEY]]}

    def _is_written(self, folder: Path, first: int) -> bool:
        name = self.written.get((folder, first))
        return name is not None and (folder / name).is_file()
