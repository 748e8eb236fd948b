"""Files that are there as a whole or not at all."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

ENCRYPTED, MS_DOS_FOLDER = 0x1, 0x10  # bits that no file of ours has, and that readers believe


class DamagedFileError(ValueError):
    """A file cannot be read as what it was written as."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that at any moment it is there as it was before or as it is to be, even if the machine stops.

    Raises:
        OSError: If it cannot be written; nothing is left of the attempt.
    """
    partial = _partial(path)
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_beside_log(path: Path, content: bytes) -> None:
    """Write a file as ``write_atomically`` does, into a folder that need not be there yet.

    Raises:
        OSError: If it cannot be written; the message names it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: {path} was not written") from error


def keep(path: Path, kept: Path) -> None:
    """Give a file that is about to be replaced a second name, in place of what had that name; nothing is written twice.

    Raises:
        OSError: If neither a link nor, where the file system has none, a copy can be made.
    """
    partial = _partial(kept)
    partial.unlink(missing_ok=True)
    try:
        partial.hardlink_to(path)
    except OSError:
        write_atomically(kept, path.read_bytes())
        return
    try:
        partial.replace(kept)
    finally:
        partial.unlink(missing_ok=True)  # which stays if both names were of one file already


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")  # the same each time: what a kill has left is written over


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # where a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def pack(value: Any) -> bytes:
    """Return what :func:`unpack` reads."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def unpack(path: Path, weights_only: bool = True, map_location: Any = "cpu") -> Any:
    """Read what :func:`pack` made, after a look at the checksums in it.

    Raises:
        DamagedFileError: If there is no such file, it is cut short, a checksum does not hold, or it holds something
            that must not be loaded.
    """
    if not path.is_file():
        raise DamagedFileError(f"{path} is not there")
    try:
        with zipfile.ZipFile(path) as archive:
            odd = [each.filename for each in archive.infolist() if each.flag_bits & ENCRYPTED or each.is_dir()]
            odd += [each.filename for each in archive.infolist() if each.external_attr & MS_DOS_FOLDER]
            damaged = odd[0] if odd else archive.testzip()
    except PermissionError as error:
        raise DamagedFileError(f"{path} may not be read") from error
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, ValueError) as error:
        raise DamagedFileError(f"{path} is cut short or damaged ({error})") from error
    if damaged is not None:
        raise DamagedFileError(f"{path} is damaged (what it says of {damaged} does not hold)")
    try:
        return torch.load(path, weights_only=weights_only, map_location=map_location)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise DamagedFileError(f"{path} cannot be loaded ({error})") from error
