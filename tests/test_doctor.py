from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from pathlib import Path

import pytest

from lit_awm.cli import main

pytestmark = pytest.mark.program


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lit-awm"])


def test_versions_and_devices_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == []
    assert found["torch"] == importlib.metadata.version("torch")
    assert {"python", "lightning", "torchrl", "cpu", "gpus", "compiler"} <= set(found)


@pytest.mark.parametrize(
    ("name", "version", "words"),
    [
        ("tensordict", None, "tensordict is missing: pip install 'tensordict"),
        ("torchrl", "0.15.0", "torchrl must be <0.15,>=0.14.1, got 0.15.0: pip install 'torchrl<0.15,>=0.14.1'"),
        ("lightning", "2.6.3", "lightning 2.6.3 must not be installed: it was compromised"),
        ("mujoco", "4.0.0", "mujoco 4.0.0 must not be installed: dm-control 1.0 does not work with it"),
    ],
)
def test_versions_that_do_not_work_are_named(
    name: str, version: str | None, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.metadata.version

    def pretended(asked: str) -> str:
        if asked == name and version is None:
            raise importlib.metadata.PackageNotFoundError(asked)
        return version if asked == name and version is not None else real(asked)

    monkeypatch.setattr(importlib.metadata, "version", pretended)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "PROBLEM" in out
    assert words in out


def test_specs_are_those_of_the_episodes_of_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--config", "common", "--data.env", "credit_assignment", "--data.env_options.final_length", "20"]
    assert main(["doctor", *options, "--trainer.accelerator", "cpu"]) == 0
    assert "credit_assignment: its specs hold" in capsys.readouterr().out


def test_a_recipe_is_tried_and_its_time_estimated(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--config", "bear_populations", "--data.episode_length", "20", "--trainer.accelerator", "cpu"]
    assert main(["doctor", *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["device"] == "cpu"
    assert found["environment"] == "bear_populations: its specs hold"
    assert found["run"].startswith("10 iterations, about ")
    assert {"teacher update", "model update", "policy update", "peak memory", "disk"} <= set(found)
    assert not list(Path.cwd().iterdir())


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="an administrator may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    options = ["--config", "bear_populations", "--trainer.logger.save_dir", "closed/runs"]
    assert main(["doctor", *options]) == 1
    assert (
        "trainer.logger.save_dir must be a folder that can be written to, got 'closed/runs'" in capsys.readouterr().out
    )


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("")
    options = ["--config", "bear_populations", "--data.episode_length", "20", "--trainer.logger.save_dir", "taken/runs"]
    assert main(["doctor", *options]) == 1
    words = "trainer.logger.save_dir must be a folder that can be written to, got 'taken/runs': "
    assert words in capsys.readouterr().out
    with pytest.raises(SystemExit) as raised:
        main(["fit", *options])
    assert raised.value.code == 2
    assert words in capsys.readouterr().err


def test_what_is_wrong_with_a_recipe_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", "--config", "bear_populations", "--data.num_envs", "-1"])
    assert "num_envs" in capsys.readouterr().err
