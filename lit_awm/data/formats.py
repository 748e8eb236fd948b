"""Recorded trajectories in files: NPZ, HDF5, CSV, Parquet, TorchRL's memory-mapped storage, and Minari.

Whatever the format, a recording is a table with a row for each step. A *field* is an array, a dataset, or the column
of its name, or all columns of its name with a number, as ``observation_0``.
"""

from __future__ import annotations

import csv
import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lit_awm.checks import did_you_mean
from lit_awm.data.minari_datasets import MINARI, check_minari, read_minari, write_minari

NEEDED = ("observation", "action", "reward")
FIELDS = (*NEEDED, "next_observation", "terminated", "truncated", "episode")
Columns = Mapping[str, str | Sequence[str]]
Table = dict[str, np.ndarray[Any, Any]]


def read_rows(path: str, columns: Columns | None = None) -> dict[str, Tensor]:
    """Return the fields of a recording, ``(N, D)`` each, ``episode`` ``(N,)``.

    Args:
        path: A file (``.npz``, ``.h5``, ``.hdf5``, ``.csv``, ``.parquet``), the folder of a memory-mapped TensorDict,
            or ``minari:`` and the name of a dataset.
        columns: What a field is called, or which columns make it up, where that differs from its name.

    Raises:
        ValueError: If there is no such file, it is damaged or of an unknown format, it lacks what is needed, numbers
            are not finite or flags not 0 or 1, or ``columns`` are given for a folder or Minari.
    """
    if columns and (path.startswith(MINARI) or Path(path).is_dir()):
        raise ValueError(f"columns must be left out for {path!r}, whose fields have names of their own.")
    if path.startswith(MINARI):
        return _check(read_minari(path.removeprefix(MINARI)), path)
    file = Path(path)
    if not file.exists():
        raise ValueError(f"path must be a file, a folder, or minari:NAME, got {path!r}, which is not there.")
    if file.is_dir():
        return _read_memmap(file)
    if file.suffix not in READERS:
        raise ValueError(f"path must end in {', '.join(READERS)}, got {path!r}.")
    table = _read(file)
    unknown = [name for name in columns or {} if name not in FIELDS]
    if unknown:
        raise ValueError(
            f"columns must be of {', '.join(FIELDS)}, got {unknown[0]!r}.{did_you_mean(unknown[0], FIELDS)}"
        )
    found = {field: _field(table, field, (columns or {}).get(field), path) for field in FIELDS}
    return _check({name: value for name, value in found.items() if value is not None}, path)


def _field(table: Table, field: str, given: str | Sequence[str] | None, path: str) -> Tensor | None:
    names = [given] if isinstance(given, str) else list(given or [])
    if not names:
        names = [field] if field in table else _numbered(field, table, path)
    missing = [name for name in names if name not in table]
    if missing or (not names and field in NEEDED):
        wanted = missing[0] if missing else field
        raise ValueError(
            f"{path} must have {wanted!r} for {field}, got {', '.join(table)}.{did_you_mean(wanted, list(table))} Name "
            "what it is called in `columns`."
        )
    if not names:
        return None
    parts = [torch.as_tensor(np.ascontiguousarray(_numbers(name, table[name], path))) for name in names]
    if len({len(part) for part in parts}) > 1:
        lengths = ", ".join(f"{name} {len(part)}" for name, part in zip(names, parts, strict=True))
        raise ValueError(f"{path} must have as many rows in all columns of {field}, got {lengths}.")
    return torch.cat([part.flatten(1) if part.ndim > 1 else part.unsqueeze(-1) for part in parts], dim=-1)


def _numbered(field: str, table: Table, path: str) -> list[str]:
    """Return the columns of a field in the order of their numbers."""
    names = [name for name in table if re.fullmatch(rf"{field}_\d+", name)]
    names.sort(key=lambda name: int(name.rpartition("_")[2]))
    numbers = [int(name.rpartition("_")[2]) for name in names]
    if names and numbers != list(range(numbers[0], numbers[0] + len(names))):
        raise ValueError(
            f"{path} must number the columns of {field} without gaps, got {', '.join(names)}. Name those that make it "
            "up in `columns`."
        )
    return names


def _numbers(name: str, column: np.ndarray[Any, Any], path: str) -> np.ndarray[Any, Any]:
    """Return the numbers of a column, which may be written as words."""
    if column.dtype.kind not in "USO":
        return column
    words = {"true": "1", "false": "0"}
    try:
        return np.array([float(words.get(str(word).strip().lower(), word)) for word in column.tolist()])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} must hold numbers, got {error} in column {name!r}.") from None


def _check(rows: dict[str, Tensor], path: str) -> dict[str, Tensor]:
    """Return rows in single precision, of equal length and finite."""
    count = len(rows["observation"])
    if not count:
        raise ValueError(f"{path} must hold steps, got none.")
    for name, value in rows.items():
        if name not in ("observation", "action", "next_observation") and value.shape[-1] != 1:
            raise ValueError(f"{path} must have one number of {name} in a step, got {value.shape[-1]}.")
        if len(value) != count:
            raise ValueError(f"{path} must have as many rows of {name} as of observation, {count}, got {len(value)}.")
        rows[name] = value.float() if name in (*NEEDED, "next_observation") else value
        _reject(~rows[name].isfinite(), "finite numbers, in single precision", name, value, path)
    if "next_observation" in rows and rows["next_observation"].shape != rows["observation"].shape:
        sizes = rows["observation"].shape[-1], rows["next_observation"].shape[-1]
        raise ValueError(f"{path} must have next_observation as wide as observation, {sizes[0]}, got {sizes[1]}.")
    for name in ("terminated", "truncated"):
        if name in rows:
            _reject((rows[name] != 0) & (rows[name] != 1), "0 or 1", name, rows[name], path)
            rows[name] = rows[name].bool()
    if "episode" in rows:
        rows["episode"] = rows["episode"].flatten()
    return rows


def _reject(is_bad: Tensor, rule: str, name: str, value: Tensor, path: str) -> None:
    """Reject a recording with a row ``(N, D)`` that is bad."""
    bad = is_bad.any(-1).nonzero()
    if len(bad):
        raise ValueError(f"{path} must hold {rule}, got {name} {value[bad[0, 0]].tolist()} in row {bad[0, 0]}.")


def to_trajectories(rows: dict[str, Tensor]) -> TensorDict:
    """Return the steps ``(N,)`` of a recording in the form in which experience is kept.

    An episode ends where the number in ``episode`` changes, or after a step that is ``terminated`` or ``truncated``.
    Where no ``next_observation`` is recorded the next row has it, and the last step of an episode, after which nobody
    knows what followed, is left out.

    Raises:
        ValueError: If it is not known of any step what followed.
    """
    count = len(rows["observation"])
    ends = torch.zeros(count, dtype=torch.bool)
    ends[-1:] = True
    if "episode" in rows:
        ends[:-1] |= rows["episode"][1:] != rows["episode"][:-1]
    for name in ("terminated", "truncated"):
        if name in rows:
            ends |= rows[name].flatten()
    is_init = torch.cat([torch.ones(1, dtype=torch.bool), ends[:-1]])
    number = is_init.cumsum(0) - 1
    following = rows.get("next_observation")
    kept = torch.ones(count, dtype=torch.bool)
    if following is None:
        following, kept = rows["observation"].roll(-1, 0), ~ends
    terminated = rows.get("terminated", torch.zeros(count, 1, dtype=torch.bool))
    steps = {
        "observation": rows["observation"],
        "action": rows["action"],
        "is_init": is_init.unsqueeze(-1),
        "collector": {"traj_ids": number},
        "next": {"observation": following, "reward": rows["reward"], "terminated": terminated},
    }
    if not kept.any():
        raise ValueError(
            "a recording must hold what follows a step: the next one of its episode, or next_observation. Each of its "
            "episodes has a single step; name the column that tells episodes apart in `columns`."
        )
    return TensorDict(steps, batch_size=count)[kept]


def check_format(path: Path) -> None:
    """Reject a file, or ``minari:NAME``, that cannot be written, before there is anything to write.

    Raises:
        ValueError: If the format is not known, a package that it needs is not there, or the dataset is.
    """
    if str(path).startswith(MINARI):
        check_minari(str(path).removeprefix(MINARI))
        return
    if path.suffix not in WRITERS:
        raise ValueError(f"out must end in {', '.join(WRITERS)}, or be {MINARI}NAME, got {str(path)!r}.")
    if path.suffix in PACKAGES:
        _import(PACKAGES[path.suffix], f"write {path.suffix}")


def write_rows(path: Path, steps: TensorDictBase, env: str = "") -> None:
    """Write the steps ``(N,)`` of whole episodes, recorded in ``env``, in the format that the name tells.

    Raises:
        ValueError: If that cannot be written, see :func:`check_format`.
    """
    check_format(path)
    rows = {
        "observation": steps["observation"],
        "action": steps["action"],
        "reward": steps["next", "reward"],
        "next_observation": steps["next", "observation"],
        "terminated": steps["next", "terminated"],
        "truncated": steps["next", "done"] & ~steps["next", "terminated"],
        "episode": steps["collector", "traj_ids"].unsqueeze(-1),
    }
    table = {name: value.cpu().numpy() for name, value in rows.items()}
    if str(path).startswith(MINARI):
        write_minari(str(path).removeprefix(MINARI), table, env)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    WRITERS[path.suffix](path, table)


# -- Formats ----------------------------------------------------------------------------------------------------------


def _read(file: Path) -> Table:
    try:
        return READERS[file.suffix](file)
    except DAMAGES as error:
        raise ValueError(f"path must be a {file.suffix} file that can be read, got {str(file)!r}: {error}.") from error


def _read_npz(file: Path) -> Table:
    with zipfile.ZipFile(file):  # NumPy takes other files as well
        pass
    with np.load(file, allow_pickle=False) as archive:
        try:
            return dict(archive)
        except ValueError as error:  # of objects, which are no numbers
            raise OSError(error) from error


def _read_hdf5(file: Path) -> Table:
    h5py = _import("h5py", "read HDF5")
    with h5py.File(file) as archive:
        return {name: value[()] for name, value in archive.items() if hasattr(value, "shape")}


def _read_csv(file: Path) -> Table:
    lines = []
    with file.open(newline="", encoding="utf-8-sig") as stream:  # spreadsheets begin with a byte-order mark
        reader = csv.reader(stream)
        names = [name.strip() for name in next(reader, [])]
        for line in filter(None, reader):
            if len(line) != len(names):
                raise ValueError(
                    f"{file} must have {len(names)} entries in every line, got {len(line)} in line {reader.line_num}."
                )
            lines.append(line)
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{file} must have a name of its own for every column, got {repeated[0]!r} more than once.")
    columns = zip(*lines, strict=True) if lines else [()] * len(names)
    return {name: np.array(column, dtype=str) for name, column in zip(names, columns, strict=True)}


def _read_parquet(file: Path) -> Table:
    parquet = _import("pyarrow.parquet", "read Parquet")
    try:
        table = parquet.read_table(file)
    except ValueError as error:  # a subclass, which does not name the file
        raise OSError(error) from error
    return {name: np.asarray(table[name].to_pylist()) for name in table.column_names}


def _read_memmap(folder: Path) -> dict[str, Tensor]:
    try:
        steps = TensorDict.load_memmap(folder)
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise ValueError(f"path must be the folder of a memory-mapped TensorDict, got {folder}: {error}") from error
    steps = steps.reshape(-1)
    if (metadata := folder / "storage_metadata.json").is_file():  # of a storage, which may not be full
        steps = steps[: json.loads(metadata.read_text())["len"]]
    names: dict[str, Any] = {"observation": "observation", "action": "action", "reward": ("next", "reward")}
    names |= {"next_observation": ("next", "observation"), "terminated": ("next", "terminated")}
    names |= {"truncated": ("next", "truncated"), "episode": ("collector", "traj_ids")}
    present = steps.keys(True, True)
    rows = {field: steps[name].clone() for field, name in names.items() if name in present}
    if missing := [field for field in NEEDED if field not in rows]:
        raise ValueError(f"{folder} must have {names[missing[0]]!r}, got {', '.join(map(str, present))}.")
    return _check({name: value.reshape(len(value), -1) for name, value in rows.items()}, str(folder))


def _write_npz(file: Path, table: Table) -> None:
    np.savez_compressed(file, **table)  # type: ignore[arg-type]


def _write_hdf5(file: Path, table: Table) -> None:
    h5py = _import("h5py", "write HDF5")
    with h5py.File(file, "w") as archive:
        for name, value in table.items():
            archive.create_dataset(name, data=value, compression="gzip")


def _columns(table: Table) -> dict[str, np.ndarray[Any, Any]]:
    """Return one column for each component of the vectors, and one for each of the others."""
    vectors = ("observation", "action", "next_observation")
    return {
        f"{name}_{index}" if name in vectors else name: column
        for name, value in table.items()
        for index, column in enumerate(value.T)
    }


def _write_csv(file: Path, table: Table) -> None:
    columns = {name: value.astype(int) if value.dtype == bool else value for name, value in _columns(table).items()}
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


def _write_parquet(file: Path, table: Table) -> None:
    pyarrow, parquet = _import("pyarrow", "write Parquet"), _import("pyarrow.parquet", "write Parquet")
    parquet.write_table(pyarrow.table(_columns(table)), file)


def _import(name: str, purpose: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(f"to {purpose} needs {name.partition('.')[0]}: pip install 'lit-awm[offline]'.") from error


DAMAGES = (OSError, EOFError, UnicodeDecodeError, csv.Error, zipfile.BadZipFile)  # as readers tell of them
PACKAGES = {".h5": "h5py", ".hdf5": "h5py", ".parquet": "pyarrow.parquet"}
READERS: dict[str, Callable[[Path], Table]] = {
    ".npz": _read_npz,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
WRITERS: dict[str, Callable[[Path, Table], None]] = {
    ".npz": _write_npz,
    ".h5": _write_hdf5,
    ".hdf5": _write_hdf5,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
