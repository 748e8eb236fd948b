from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lit_awm.checkpoints.last_run import LastRun, compare, find_last_run


def recipe(over: int, decay: float = 0.1) -> dict[str, Any]:
    scheduler = {"class_path": "lit_awm.modules.CosineRestarts", "init_args": {"decay": decay, "over": over}}
    module = {"class_path": "lit_awm.modules.PolicyModule", "init_args": {"scheduler": scheduler}}
    return {"trainer": {"max_epochs": over}, "model": {"init_args": {"policy_module": module}}}


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["last", "epoch=9"], "epoch=9"),
        (["epoch=9", "last"], "last"),
        (["epoch=9", "last-previous"], "last"),
        (["last", "epoch=9-damaged"], "last"),
    ],
)
def test_a_run_goes_on_from_its_newest_checkpoint(tmp_path: Path, names: list[str], chosen: str) -> None:
    folder = tmp_path / "version_0"
    (folder / "checkpoints").mkdir(parents=True)
    for age, name in enumerate(names):
        file = folder / "checkpoints" / f"{name}.ckpt"
        file.touch()
        os.utime(file, (age, age))
    assert find_last_run(tmp_path) == LastRun(folder, folder / "checkpoints" / f"{chosen}.ckpt")


def test_a_run_whose_rates_fall_over_its_length_may_be_resumed_for_longer() -> None:
    honoured, refused = compare(recipe(12), recipe(20))
    scheduler = "model.init_args.policy_module.init_args.scheduler.init_args"
    assert honoured == [f"{scheduler}.over: 12 before, 20 now", "trainer.max_epochs: 12 before, 20 now"]
    assert not refused


@pytest.mark.parametrize("part", ["reward", "critic"])
def test_the_sizes_of_what_rewards_and_values_are_learned_by_are_decided_by_the_checkpoint(part: str) -> None:
    before, now = ({"model": {"init_args": {part: {"init_args": {"hidden_dim": size}}}}} for size in (64, 128))
    honoured, refused = compare(before, now)
    assert not honoured
    assert refused == [f"model.init_args.{part}.init_args.hidden_dim: 64 before, 128 now"]


def test_other_settings_of_a_schedule_are_decided_by_the_checkpoint() -> None:
    honoured, refused = compare(recipe(12), recipe(12, decay=0.2))
    assert not honoured
    assert [line.rpartition(".init_args.")[2] for line in refused] == ["decay: 0.1 before, 0.2 now"]
