from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from tensordict import TensorDict

from lit_awm.checkpoints import SafeCheckpointIO
from lit_awm.commands.checkpoint import _data_of
from lit_awm.data import ExperienceDataModule
from lit_awm.data.buffer import STORED_FOR_AGENTS, ExperienceBuffer
from lit_awm.data.collectors import TRAJECTORY
from lit_awm.models import ActionsWorldModel, CausalTransformer
from lit_awm.modules import WorldModelModule

CAPACITY = 50  # steps in the buffer, of which a round fills 20


def fit(
    make_trainer: Callable[..., Trainer],
    epochs: int,
    checkpoint: Path | None = None,
    data: ExperienceDataModule | None = None,
    **options: Any,
) -> ExperienceDataModule:
    """Return the data of a fit of ``epochs`` rounds that is saved after each of them, in a folder of its own."""
    torch.manual_seed(0)
    data = data or ExperienceDataModule(
        "bear_populations",
        episode_length=10,
        num_envs=2,
        warmup_episodes=2,
        world_model_updates=1,
        world_model_batch_size=2,
        capacity=CAPACITY,
        **options,
    )
    module = WorldModelModule(ActionsWorldModel(data.state_dim, data.action_dim, CausalTransformer(8, 1, 1, 10)))
    trainer = make_trainer(max_epochs=epochs, enable_checkpointing=True, plugins=[SafeCheckpointIO()])
    trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    return data


@pytest.mark.parametrize("epochs", [2, 5])  # before and after the oldest has been overwritten
def test_experience_on_disk_is_the_same_and_resumes_the_same(
    make_trainer: Callable[..., Trainer], tmp_path: Path, epochs: int
) -> None:
    in_memory = fit(make_trainer, epochs + 2)
    on_disk = fit(make_trainer, epochs, storage_dir=str(tmp_path / "buffer"))
    assert on_disk.trainer is not None
    on_disk.trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed = fit(make_trainer, epochs + 2, tmp_path / "last.ckpt", storage_dir=str(tmp_path / "buffer"))
    assert resumed.buffer is not None
    assert in_memory.buffer is not None
    assert torch.equal(resumed.buffer[:]["action"], in_memory.buffer[:]["action"])
    assert torch.equal(resumed.buffer[:]["next", "observation"], in_memory.buffer[:]["next", "observation"])


def test_what_is_saved_from_disk_is_what_was_recorded_and_no_more(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    data = fit(make_trainer, 2, storage_dir=str(tmp_path / "buffer"))
    assert data.trainer is not None
    data.trainer.save_checkpoint(tmp_path / "new" / "last.ckpt")
    (file,) = (tmp_path / "new" / "experience").iterdir()
    assert file.stat().st_size < 2 * 40 * sum(value.nbytes // CAPACITY for value in _columns(data)) + 10_000
    loaded = SafeCheckpointIO().load_checkpoint(tmp_path / "new" / "last.ckpt")
    segments = loaded["ExperienceDataModule"]["experience"]
    assert data.buffer is not None
    assert torch.equal(torch.cat([each["rows"]["action"] for each in segments]), data.buffer[:40]["action"])


@pytest.mark.parametrize("on_disk", [False, True])
def test_data_that_hold_experience_go_back_to_that_of_a_checkpoint(
    make_trainer: Callable[..., Trainer], tmp_path: Path, on_disk: bool
) -> None:
    data = fit(make_trainer, 2, storage_dir=str(tmp_path / "buffer") if on_disk else None)
    assert data.trainer is not None
    assert data.buffer is not None
    data.trainer.save_checkpoint(tmp_path / "last.ckpt")
    steps, before = data.env_steps, [column.clone() for column in _columns(data)]
    fit(make_trainer, 4, tmp_path / "last.ckpt", data)
    assert data.env_steps > steps
    fit(make_trainer, 2, tmp_path / "last.ckpt", data)
    assert data.env_steps == steps == len(data.buffer)
    assert all(map(torch.equal, _columns(data), before))


def test_experience_that_does_not_tell_where_episodes_ended_is_refused(make_trainer: Callable[..., Trainer]) -> None:
    """As that of checkpoints from before it was recorded."""
    data = fit(make_trainer, 1)
    assert data.buffer is not None
    state = data.buffer.state()
    for segment in state:
        del segment["rows"]["next.terminated"]
    with pytest.raises(ValueError, match="tells of every step whether it was terminated"):
        data.buffer.load(state, {}, data.buffer.collected)


def _columns(data: ExperienceDataModule) -> list[torch.Tensor]:
    assert data.buffer is not None
    return [value for value in data.buffer[:].flatten_keys(".").values() if isinstance(value, torch.Tensor)]


def test_files_of_the_buffer_go_with_it(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    data = fit(make_trainer, 1, storage_dir=str(tmp_path / "buffer"))
    assert list((tmp_path / "buffer").rglob("*.memmap"))
    del data
    gc.collect()
    assert not list((tmp_path / "buffer").iterdir())


def test_the_policy_of_a_checkpoint_needs_neither_the_buffers_folder_nor_its_collectors(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = {"env": "bear_populations", "storage_dir": str(tmp_path / "file"), "collector": "ray", "seed": 3}
    recipe = {"data": {"class_path": "lit_awm.data.ExperienceDataModule", "init_args": options}}
    found = _data_of(recipe, {})
    assert found == recipe["data"] | {"init_args": options | {"storage_dir": None, "collector": "single"}}
    ExperienceDataModule(**found["init_args"])


def test_a_disk_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="storage_dir"):
        ExperienceDataModule("bear_populations", storage_dir=str(tmp_path / "file"))


def test_an_agent_draws_every_transition_as_often_however_long_its_episode() -> None:
    torch.manual_seed(0)
    buffer = ExperienceBuffer(102, 1, 256, is_for_agent=True)
    for number, length in enumerate((2, 100)):
        shape = (1, length, 1)
        rows = TensorDict({key: torch.zeros(shape) for key in STORED_FOR_AGENTS}, (1, length))
        rows[TRAJECTORY] = torch.full((1, length), number)
        rows["observation"] = torch.full(shape, float(number))
        buffer.add(rows)
    short = torch.cat([buffer.sample_trajectories()["observation"] for _ in range(20)]) == 0
    assert 0.01 < short.float().mean() < 0.03  # 2 of 102
