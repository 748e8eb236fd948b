"""Save a run that is asked to stop, before it does."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_warn

from lit_awm.checkpoints import run_folder

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SaveOnInterrupt(Checkpoint):
    """Save a checkpoint and stop, at the end of the update or epoch in which SIGINT (Ctrl-C) or SIGTERM arrives.

    The checkpoint is ``last.ckpt``, in the folder of the ``ModelCheckpoint`` beside it, and a run goes on from it
    exactly (``lit-awm fit ... --resume``). Without one nothing else is saved: Lightning adds none beside this.
    The process ends with status 128 plus the number of the signal. A second signal stops it at once, without saving.

    After an error in an update, or later, a checkpoint of the state as it was is saved as ``exception.ckpt``, to look
    into; ``last.ckpt`` stays as it was. Where there are several processes nothing is saved after an error.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._has_begun = False
        self._handlers: dict[int, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        if stage == "fit" and len(trainer.checkpoint_callbacks) == 1 and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_warn(
                "nothing is saved until the run is interrupted: give a ModelCheckpoint beside SaveOnInterrupt."
            )
        trainer.callbacks = [*(each for each in callbacks if each is not self), self]  # type: ignore[attr-defined]  # let all others have done their part when it stops

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._received, self._has_begun = None, False
        if threading.current_thread() is threading.main_thread():  # no other may handle signals
            self._handlers = {number: signal.signal(number, self._receive) for number in SIGNALS}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            raise SystemExit(128 + number)
        self._received = number
        name = signal.Signals(number).name
        text = f"\n{name} received: saving after this update (once more to stop at once)\n"
        with contextlib.suppress(OSError):  # a handler must not print, and what reads its output may have stopped too
            os.write(sys.stderr.fileno(), text.encode())

    def on_train_batch_start(self, *_: Any) -> None:
        self._has_begun = True

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        loop = trainer.fit_loop
        is_evaluated = loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # type: ignore[arg-type]
        if not trainer.is_last_batch and not is_evaluated:  # else the evaluation, or the end of the epoch, comes first
            self._stop_if_asked(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and self._has_begun and not trainer.is_last_batch:
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_if_asked(trainer)

    def _stop_if_asked(self, trainer: Trainer) -> None:
        received = trainer.strategy.reduce_boolean_decision(self._received is not None, all=False)
        if not received:
            return
        path = self._folder(trainer) / "last.ckpt"
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            with contextlib.suppress(BrokenPipeError):
                print(f"saved {path}: go on with --resume", file=sys.stderr)  # noqa: T201
        raise SystemExit(128 + (self._received or signal.SIGTERM))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore_handlers()
        is_dry = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
        is_alone = trainer.world_size == 1  # else the other processes, which would have to help, may be gone
        if isinstance(exception, Exception) and self._has_begun and not is_dry and is_alone:
            path = self._folder(trainer) / "exception.ckpt"
            try:
                trainer.save_checkpoint(path)
                told = f"the state in which the error arose is in {path}"
            except Exception as error:  # which is not to hide the one that is being raised
                told = f"the state in which the error arose could not be saved: {error}"
            with contextlib.suppress(BrokenPipeError):
                print(told, file=sys.stderr)  # noqa: T201

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    @staticmethod
    def _folder(trainer: Trainer) -> Path:
        folders = [getattr(each, "dirpath", None) for each in trainer.checkpoint_callbacks]
        found = next((Path(folder) for folder in folders if folder), None)
        return found or (run_folder(trainer) or Path(trainer.default_root_dir)) / "checkpoints"
