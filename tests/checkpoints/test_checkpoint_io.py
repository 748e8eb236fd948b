from __future__ import annotations

import builtins
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_awm.checkpoints import DamagedFileError, SafeCheckpointIO, checkpoint_io
from lit_awm.checkpoints.files import keep, pack
from lit_awm.data import ExperienceDataModule
from lit_awm.models import ActionsWorldModel, CausalTransformer
from lit_awm.modules import WorldModelModule

Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, Damage] = {
    "empty": lambda content: b"",
    "cut short": lambda content: content[: len(content) // 2],
    "without its end": lambda content: content[:-1],
    "a bit flipped": lambda content: _flip(content, content.index(b"weights!") + 3),
    "a weight marked as a folder": lambda content: _mark(content, 38, 0x10),
    "a weight marked as encrypted": lambda content: _mark(content, 8, 0x01),
    "text": lambda content: b"weights",
}


def _flip(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def _mark(content: bytes, offset: int, bit: int) -> bytes:
    """Set a bit of what the list at the end of the archive says of the last file with weights."""
    begin = content.rindex(b"PK\x01\x02", 0, content.rindex(b"/data/"))
    return content[: begin + offset] + bytes([content[begin + offset] | bit]) + content[begin + offset + 1 :]


def checkpoint(number: int, segments: int = 0) -> dict[str, Any]:
    rows = [{"first": 10 * i, "rows": {"observation": torch.full((10, 2), float(i))}} for i in range(segments)]
    data = {"Data": {"experience": rows, "env_steps": 10 * segments}} if segments else {}
    weights = torch.frombuffer(bytearray(b"weights!" * 64), dtype=torch.uint8).clone()
    return {"number": number, "state_dict": {"weight": weights}, **data}


def load(path: Path) -> dict[str, Any]:
    return SafeCheckpointIO().load_checkpoint(path)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    SafeCheckpointIO().save_checkpoint(checkpoint(1, segments=3), tmp_path / "last.ckpt")
    found = load(tmp_path / "last.ckpt")
    assert found["number"] == 1
    assert found["Data"]["env_steps"] == 30
    assert [segment["first"] for segment in found["Data"]["experience"]] == [0, 10, 20]
    assert found["Data"]["experience"][2]["rows"]["observation"].eq(2).all()


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_is_named_and_skipped_and_kept(tmp_path: Path, damage: Damage) -> None:
    path = tmp_path / "last.ckpt"
    for number in (1, 2):
        SafeCheckpointIO().save_checkpoint(checkpoint(number), path)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    plugin = SafeCheckpointIO()
    with pytest.warns(UserWarning, match=r"last\.ckpt is .*going on from the checkpoint before, .*last-previous\.ckpt"):
        assert plugin.load_checkpoint(path)["number"] == 1
    plugin.save_checkpoint(checkpoint(3), path)
    assert load(path)["number"] == 3
    assert (tmp_path / "last-damaged.ckpt").read_bytes() == damaged
    assert load(tmp_path / "last-previous.ckpt")["number"] == 1


def test_when_no_checkpoint_is_whole_each_is_named(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    for number in (1, 2):
        SafeCheckpointIO().save_checkpoint(checkpoint(number), path)
    path.write_bytes(b"")
    (tmp_path / "last-previous.ckpt").unlink()
    with pytest.raises(DamagedFileError, match=r"last\.ckpt is cut short.*last-previous\.ckpt is not there"):
        load(path)


def test_experience_that_is_not_what_it_was_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    SafeCheckpointIO().save_checkpoint(checkpoint(1, segments=2), path)
    (file,) = (tmp_path / "experience").iterdir()
    other = tmp_path / "other"
    SafeCheckpointIO().save_checkpoint(checkpoint(2, segments=1), other / "last.ckpt")
    (of_other,) = (other / "experience").iterdir()
    file.write_bytes(of_other.read_bytes())
    with pytest.raises(DamagedFileError, match="is not what it was"):
        load(path)
    file.unlink()
    with pytest.raises(DamagedFileError, match=f"{file.name} is not there"):
        load(path)


def test_a_save_writes_what_is_new_and_no_more(tmp_path: Path) -> None:
    plugin, path, seen = SafeCheckpointIO(), tmp_path / "last.ckpt", set[Path]()
    whole = checkpoint(0, 5)
    for segments, new in ((2, [0, 10]), (3, [20]), (3, []), (5, [30, 40])):
        part = {"experience": whole["Data"]["experience"][:segments], "env_steps": 10 * segments}
        plugin.save_checkpoint(whole | {"Data": part}, path)
        files = set((tmp_path / "experience").iterdir())
        assert [segment["first"] for file in files - seen for segment in torch.load(file)] == new
        seen = files
    resumed = SafeCheckpointIO()
    resumed.save_checkpoint(resumed.load_checkpoint(path), path)
    assert set((tmp_path / "experience").iterdir()) == seen


def test_a_plugin_that_is_used_again_writes_what_the_new_run_has_seen(tmp_path: Path) -> None:
    plugin = SafeCheckpointIO()
    for value in (1.0, 2.0):
        saved = checkpoint(1, 1)
        saved["Data"]["experience"][0]["rows"]["observation"].fill_(value)
        plugin.save_checkpoint(saved, tmp_path / "last.ckpt")
    assert load(tmp_path / "last.ckpt")["Data"]["experience"][0]["rows"]["observation"].eq(2).all()


@pytest.mark.parametrize("reference", [3, {"first": 0}, {"first": 0, "file": 5}, {"first": 0, "file": "../x.pt"}, {}])
def test_references_to_other_files_are_refused(tmp_path: Path, reference: Any) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(pack({"Data": {"experience": [reference]}}))
    with pytest.raises(DamagedFileError, match=r"refers to experience as .*, which is no file"):
        load(path)


def test_a_save_that_fails_beside_a_damaged_checkpoint_loses_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, plugin = Path("last.ckpt"), SafeCheckpointIO()
    for number in (1, 2):
        plugin.save_checkpoint(checkpoint(number), path)
    path.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="going on from the checkpoint before"):
        assert plugin.load_checkpoint(path)["number"] == 1

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_io, "write_atomically", fail)
        with pytest.raises(OSError, match="No space left"):
            plugin.save_checkpoint(checkpoint(3), path.resolve())
    assert load(Path("last-previous.ckpt"))["number"] == 1
    plugin.save_checkpoint(checkpoint(3), path.resolve())
    assert load(path)["number"] == 3
    assert load(Path("last-previous.ckpt"))["number"] == 1
    assert all(file.read_bytes() == b"damaged" for file in tmp_path.glob("last-damaged*.ckpt"))


def test_later_experience_does_not_leak_into_an_earlier_checkpoint(tmp_path: Path) -> None:
    first, second = tmp_path / "first.ckpt", tmp_path / "second.ckpt"
    plugin = SafeCheckpointIO()
    plugin.save_checkpoint(checkpoint(1, 2), first)
    plugin.save_checkpoint(checkpoint(2, 4), second)
    branch = SafeCheckpointIO()
    assert len(branch.load_checkpoint(first)["Data"]["experience"]) == 2
    other = checkpoint(3, 3)
    other["Data"]["experience"][2]["rows"]["observation"].fill_(-1)
    branch.save_checkpoint(other, tmp_path / "third.ckpt")
    assert load(second)["Data"]["experience"][2]["rows"]["observation"].eq(2).all()
    assert load(tmp_path / "third.ckpt")["Data"]["experience"][2]["rows"]["observation"].eq(-1).all()


@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
def test_when_writing_fails_the_checkpoint_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path, plugin = tmp_path / "last.ckpt", SafeCheckpointIO()
    plugin.save_checkpoint(checkpoint(1), path)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if moment == "fsync":
            patch.setattr(os, "fsync", fail)
        elif moment == "replace":
            patch.setattr(Path, "replace", fail)
        else:
            patch.setattr(Path, "open", fail)
        with pytest.raises(
            OSError, match=r"No space left on device: .*last\.ckpt was not written; what had been saved before stays"
        ):
            plugin.save_checkpoint(checkpoint(2), path)
    assert load(path)["number"] == 1
    assert not [file for file in tmp_path.iterdir() if "partial" in file.name]


@pytest.mark.parametrize("has_links", [True, False])
def test_the_checkpoint_before_is_kept_though_a_save_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    path, plugin = tmp_path / "last.ckpt", SafeCheckpointIO()
    if not has_links:
        monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(OSError(95, "Not supported")))
    plugin.save_checkpoint(checkpoint(1), path)
    keep(path, tmp_path / "last-previous.ckpt")  # and no more
    for number in (2, 3):
        plugin.save_checkpoint(checkpoint(number), path)
        assert load(path)["number"] == number
        assert load(tmp_path / "last-previous.ckpt")["number"] == number - 1
    assert not [file for file in tmp_path.iterdir() if "partial" in file.name]


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    path, trace = tmp_path / "last.ckpt", tmp_path / "trace"

    class Attack:
        def __reduce__(self) -> Any:
            return builtins.eval, (f"open({str(trace)!r}, 'w').close()",)

    torch.save({"state_dict": Attack()}, path)
    with pytest.raises(DamagedFileError, match="cannot be loaded"):
        load(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # it would have
    assert trace.exists()


def test_a_trainer_resumes_from_the_files_of_the_plugin(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    def fit(epochs: int, path: Path | None) -> tuple[WorldModelModule, ExperienceDataModule]:
        torch.manual_seed(0)
        data = ExperienceDataModule(
            "bear_populations",
            {"initial_spread": 0.2},
            episode_length=8,
            num_envs=2,
            warmup_episodes=2,
            world_model_updates=3,
            world_model_batch_size=2,
        )
        module = WorldModelModule(ActionsWorldModel(data.state_dim, data.action_dim, CausalTransformer(8, 1, 1, 8)))
        saver = ModelCheckpoint(tmp_path / "run", "last", enable_version_counter=False)
        options = {"enable_checkpointing": True, "callbacks": [saver], "plugins": [SafeCheckpointIO()]}
        make_trainer(max_epochs=epochs, **options).fit(module, data, ckpt_path=path, weights_only=True)
        return module, data

    expected, _ = fit(3, None)
    for file in (tmp_path / "run").rglob("*.*"):
        file.unlink()
    fit(1, None)
    resumed, data = fit(3, tmp_path / "run" / "last.ckpt")
    assert data.env_steps == 3 * 16
    assert len(list((tmp_path / "run" / "experience").iterdir())) == 3
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name]), name


def test_options_that_nothing_would_use_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="storage_options must be None"):
        SafeCheckpointIO().save_checkpoint({}, tmp_path / "last.ckpt", storage_options={})


def test_two_folders_do_not_make_each_other_write_all_again(tmp_path: Path) -> None:
    plugin, whole = SafeCheckpointIO(), checkpoint(0, 5)
    for segments in (2, 3, 5):
        part = {"experience": whole["Data"]["experience"][:segments], "env_steps": 10 * segments}
        for folder in ("one", "two"):
            plugin.save_checkpoint(whole | {"Data": part}, tmp_path / folder / "last.ckpt")
    for folder in ("one", "two"):
        files = sorted((tmp_path / folder / "experience").iterdir())
        assert [segment["first"] for file in files for segment in torch.load(file)] == [0, 10, 20, 30, 40]
