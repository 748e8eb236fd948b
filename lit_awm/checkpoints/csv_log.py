"""A log in one CSV file that a resumed run goes on with."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import IO, Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from lit_awm.checkpoints.files import write_atomically


class ResumableCSVLogger(CSVLogger):
    """Lightning's CSV logger, for runs that go on where they were interrupted.

    Rows that were written after the checkpoint from which a run goes on are dropped, since it will write them again: in
    the end the file is that of a run that was never interrupted. The file is whole at any moment. For the arguments see
    :class:`lightning.pytorch.loggers.CSVLogger`; ``version`` names the run to go on with. One process at a time can
    write to the folder of a version.
    """

    _lock: IO[bytes] | None = None
    _is_claimed = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """What writes the file."""
        if not self._is_claimed:
            self._lock, self._is_claimed = _claim(Path(self.log_dir)), True
        if self._experiment is None:
            self._experiment = _Writer(self.log_dir)
        return self._experiment

    def finalize(self, status: str) -> None:
        """Write what is pending, and let others write to the folder."""
        super().finalize(status)
        if self._lock is not None:
            self._lock.close()
        self._lock, self._is_claimed = None, False

    def mark(self) -> int:
        """Write what is pending, and return how many rows there are, for a checkpoint; 0 but in the first process."""
        writer = self.experiment
        return writer.mark() if isinstance(writer, _Writer) else 0

    @rank_zero_only
    def go_on_from(self, count: int, pending: dict[str, float]) -> None:
        """Keep the first rows, and add one.

        Args:
            count: What ``mark`` returned when the checkpoint was made.
            pending: What the run was about to log then, with its ``step``; or nothing.
        """
        self.experiment.go_on_from(count, pending)


def _claim(folder: Path) -> IO[bytes] | None:
    """Return an open file that nobody else can have while it is open and the process lives; None where there is none.

    Raises:
        ValueError: If another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # on Windows
        return None
    file = (folder / ".lock").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise ValueError(
            f"{folder} is being written to by another run. Wait until that has ended; or begin a run of another "
            "`trainer.logger.name`."
        ) from error
    except OSError as error:  # as on network disks
        file.close()
        rank_zero_warn(f"{folder} cannot be locked ({error.strerror}): make sure that no other run writes to it.")
        return None
    return file


class _Writer(ExperimentWriter):
    """Writes a table that only grows; the file is replaced as a whole where its columns change."""

    def __init__(self, log_dir: str) -> None:
        self._count = 0  # rows in the file
        super().__init__(log_dir)

    def _check_log_dir_exists(self) -> None:
        """Leave what is there: it is not known yet whether the run goes on with it."""

    def save(self) -> None:
        path = Path(self.metrics_file_path)
        if self._count == 0 and self.metrics:
            path.unlink(missing_ok=True)  # of another run
        self._count += len(self.metrics)
        try:
            super().save()
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}: {path} was not written to") from error

    def mark(self) -> int:
        self.save()
        if self._count:
            with Path(self.metrics_file_path).open("rb") as file:
                os.fsync(file.fileno())
        return self._count

    def go_on_from(self, count: int, pending: dict[str, float]) -> None:
        path, rows = Path(self.metrics_file_path), list[dict[str, Any]]()
        if path.is_file():  # else the run goes on under a new version, or had not written a row
            with path.open(newline="", encoding="utf-8") as file:
                for row, _ in zip(csv.DictReader(file), range(count), strict=False):
                    rows.append({name: value for name, value in row.items() if value})
            if len(rows) < count:
                rank_zero_warn(f"{path} has {len(rows)} of the {count} rows logged before; the others are lost.")
        rows += [pending] if pending else []
        self.metrics, self.metrics_keys, self._count = [], sorted(set().union(*rows)), len(rows)
        if rows:
            self._replace(rows, self.metrics_keys)
        else:
            path.unlink(missing_ok=True)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with Path(self.metrics_file_path).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self._replace(rows, fieldnames)

    def _replace(self, rows: list[dict[str, Any]], fieldnames: list[str]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=fieldnames)
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(Path(self.metrics_file_path), text.getvalue().encode())
