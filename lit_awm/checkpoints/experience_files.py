"""Experience in files beside a checkpoint: each part is written once, however many checkpoints refer to it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from lit_awm.checkpoints.files import DamagedFileError, pack, unpack, write_atomically

FOLDER = "experience"
NAME = r"\d{10,}-[0-9a-f]{16}\.pt"
KEY = "experience"  # under which a state holds its list of segments, oldest first, each with its "first" row


class ExperienceFiles:
    """Replace the segments of experience in a state by the names of files, and back.

    A file holds the segments that were new when it was written. Its name holds a digest of its content, so that a file
    is never replaced by another one: a checkpoint refers to what there was when it was made, and nothing later.

    """

    def __init__(self) -> None:
        # Name of the file, and the rows that are in it, of each segment by the folder and the row that it begins with.
        self._written: dict[tuple[Path, int], tuple[str, Any]] = {}

    def store(self, state: dict[str, Any], folder: Path) -> dict[str, Any]:
        """Return the state with names of files in place of segments; write those that are not yet written."""
        folder = folder.resolve() / FOLDER
        segments = state[KEY]
        new = [segment for segment in segments if not self._is_written(folder, segment)]
        if new:
            content = pack([segment | {"rows": _copy(segment["rows"])} for segment in new])
            digest = hashlib.sha256(content).hexdigest()[:16]
            name = f"{new[0]['first']:010d}-{digest}.pt"
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / name, content)
            self._written |= {(folder, segment["first"]): (name, segment["rows"]) for segment in new}
        here = {(folder, each["first"]): self._written[folder, each["first"]] for each in segments}
        self._written = {key: value for key, value in self._written.items() if key[0] != folder} | here
        return state | {
            KEY: [{"first": each["first"], "file": self._written[folder, each["first"]][0]} for each in segments]
        }

    def restore(self, state: dict[str, Any], folder: Path) -> dict[str, Any]:
        """Return the state with the segments that it refers to.

        Raises:
            DamagedFileError: If one of the files is not there, not what it was, or none that this class has written.
        """
        if all(isinstance(reference, dict) and "rows" in reference for reference in state[KEY]):
            return state  # they are in the checkpoint itself
        for reference in state[KEY]:
            name = reference.get("file") if isinstance(reference, dict) else None
            if not isinstance(name, str) or not re.fullmatch(NAME, name):
                raise DamagedFileError(
                    f"a checkpoint in {folder} refers to experience as {reference!r}, which is no file"
                )
        folder = folder.resolve() / FOLDER
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for name in {reference["file"] for reference in state[KEY]}:
            path = folder / name
            if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest()[:16] != path.stem.partition("-")[2]:
                raise DamagedFileError(f"{path} is not what it was when it was written")
            found |= {(name, segment["first"]): segment for segment in unpack(path)}
        missing = [each for each in state[KEY] if (each["file"], each.get("first")) not in found]
        if missing:
            raise DamagedFileError(
                f"a checkpoint in {folder.parent} refers to experience that is not there: {missing[0]}"
            )
        segments = [found[each["file"], each["first"]] for each in state[KEY]]
        self._written = {
            (folder, each["first"]): (each["file"], segment["rows"])
            for each, segment in zip(state[KEY], segments, strict=True)
        }
        return state | {KEY: segments}

    def _is_written(self, folder: Path, segment: dict[str, Any]) -> bool:
        name, rows = self._written.get((folder, segment["first"]), ("", None))
        return rows is segment["rows"] and (folder / name).is_file()


def _copy(rows: dict[str, Any]) -> dict[str, Any]:
    """Copy rows that may be views of a whole buffer, which would be written with them."""
    return {name: value.clone() for name, value in rows.items()}
