"""``lit-awm play`` writes what the evaluation did, drawn by whoever can."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from PIL import Image

from lit_awm.cli import main

pytestmark = pytest.mark.program

SHORT = [*(f"--data.{phase}_updates=1" for phase in ("teacher", "world_model", "policy")), "--trainer.max_epochs=1"]
FOLDER = "--trainer.logger.name=run"
CHECKPOINT = "runs/run/version_0/checkpoints/last.ckpt"


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def play(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["play", CHECKPOINT, "--json", *options]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_a_system_is_shown_as_curves_that_grow(capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "--config", "bioreactor", "--data.episode_length", "12", FOLDER, *SHORT])
    told = play(capsys, "--frames", "5")
    assert (told["frames"], told["of"]) == (5, "curves")
    assert told["out"] == "runs/run/version_0/play.gif"
    with Image.open(told["out"]) as animation:
        assert animation.n_frames == 5  # type: ignore[attr-defined]
    main(["evaluate", CHECKPOINT, "--json"])
    assert told["return"] == json.loads(capsys.readouterr().out)["return"]
    assert Path(play(capsys, "--out", "a/b.webp", "--frames", "2")["out"]).stat().st_size > 1000


def test_a_task_of_another_package_is_shown_as_that_draws_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    task = ["--config=common", "--data.env=gym/Pendulum-v1", "--data.episode_length=9", "--model.known_reward=false"]
    main(["fit", *task, FOLDER, *SHORT])
    told = play(capsys, "--out", "a.gif", "--frames", "4")
    assert (told["frames"], told["of"]) == (4, "images")
    with Image.open("a.gif") as animation:
        assert animation.size == (500, 500)
    assert play(capsys, "--out", "b.gif", "--frames", "2", "--curves")["of"] == "curves"

    def fail(self: PendulumEnv) -> None:
        raise RuntimeError("no display")

    monkeypatch.setattr(PendulumEnv, "render", fail)
    told = play(capsys, "--out", "c.gif", "--frames", "2")
    assert told["of"] == "curves"
    assert "no display" in told["not drawn"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--frames", "0"], "frames must be at least 1, got 0"),
        (["--fps", "0.001"], "fps must be at least 0.01 and finite, got 0.001"),
        (["--out", "a.avi"], "out must end in one of .gif, .webp, .png, got 'a.avi'"),
        ([], "checkpoint must be a file"),
    ],
)
def test_bad_options_are_refused(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["play", CHECKPOINT, *options])
    assert words in " ".join(capsys.readouterr().err.split())
    assert not Path("runs").exists()
