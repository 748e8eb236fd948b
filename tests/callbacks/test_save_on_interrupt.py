from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_awm.callbacks import SaveOnInterrupt
from lit_awm.callbacks.progress import _Output
from lit_awm.checkpoints import SafeCheckpointIO
from lit_awm.data import ExperienceDataModule
from lit_awm.models import ActionsWorldModel, CausalTransformer
from lit_awm.modules import WorldModelModule


class Disturbance(Callback):
    """Something that happens at a step."""

    def __init__(self, step: int, happen: Callable[[], Any]) -> None:
        self.step, self.happen = step, happen
        self.losses: dict[int, float] = {}

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            self.happen()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.losses[trainer.global_step] = float(outputs["loss"])


def fit(
    make_trainer: Callable[..., Trainer], disturbance: Disturbance, path: Path | None = None, *others: Callback
) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    data = ExperienceDataModule(
        "bear_populations",
        {"initial_spread": 0.2},
        episode_length=8,
        num_envs=2,
        warmup_episodes=2,
        world_model_updates=4,
        world_model_batch_size=2,
    )
    module = WorldModelModule(ActionsWorldModel(data.state_dim, data.action_dim, CausalTransformer(8, 1, 1, 8)))
    callbacks = [SaveOnInterrupt(), disturbance, *others]
    trainer = make_trainer(max_epochs=3, enable_checkpointing=True, callbacks=callbacks, plugins=[SafeCheckpointIO()])
    trainer.fit(module, data, ckpt_path=path, weights_only=True)
    return module.state_dict()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [0, 3, 6, 11])
def test_a_run_that_is_asked_to_stop_goes_on_as_if_it_had_not_been(
    make_trainer: Callable[..., Trainer],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    number: signal.Signals,
    step: int,
) -> None:
    whole = Disturbance(-1, lambda: None)
    expected = fit(make_trainer, whole)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as raised:
        fit(make_trainer, Disturbance(step, lambda: os.kill(os.getpid(), number)))
    assert raised.value.code == 128 + number
    assert signal.getsignal(number) is before
    assert f"{number.name} received: saving after this update" in capfd.readouterr().err
    resumed = Disturbance(-1, lambda: None)
    found = fit(make_trainer, resumed, tmp_path / "checkpoints" / "last.ckpt")
    assert resumed.losses == {key: loss for key, loss in whole.losses.items() if key > step + 1}
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_second_signal_stops_at_once(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        fit(make_trainer, Disturbance(3, twice))
    assert not list(tmp_path.rglob("*.ckpt"))


def test_the_state_of_an_error_is_kept_beside_the_last_checkpoint(
    make_trainer: Callable[..., Trainer], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise RuntimeError("something broke")

    with pytest.raises(RuntimeError, match="something broke"):
        fit(make_trainer, Disturbance(6, fail))
    assert SafeCheckpointIO().load_checkpoint(tmp_path / "checkpoints" / "exception.ckpt")["global_step"] == 6
    assert "the state in which the error arose is in" in capfd.readouterr().err
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_it_comes_after_all_others_that_save(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    disturbance = Disturbance(11, lambda: os.kill(os.getpid(), signal.SIGTERM))
    best = ModelCheckpoint(tmp_path, "best", save_on_train_epoch_end=True, every_n_epochs=3)
    with pytest.raises(SystemExit):
        fit(make_trainer, disturbance, None, best)
    assert (tmp_path / "best.ckpt").is_file()


@pytest.mark.parametrize("others", [[], [ModelCheckpoint(filename="last")]])
def test_a_run_without_other_checkpoints_is_warned_of(
    make_trainer: Callable[..., Trainer], recwarn: pytest.WarningsRecorder, others: list[Callback]
) -> None:
    fit(make_trainer, Disturbance(-1, lambda: None), None, *others)
    told = [warning for warning in recwarn if "give a ModelCheckpoint beside SaveOnInterrupt" in str(warning.message)]
    assert len(told) == (0 if others else 1)


def test_a_bar_that_nobody_reads_any_more_ends_no_run() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    output = _Output(Closed())
    output.write("text")
    output.flush()
    assert output.isatty() is False
