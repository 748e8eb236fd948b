"""What is recorded can be learned from: ``lit-awm collect``, and the recipes for recordings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import lit_awm
from lit_awm.cli import main
from lit_awm.data.formats import read_rows, to_trajectories

pytestmark = pytest.mark.program

SHORT = [f"--data.{phase}_updates=3" for phase in ("teacher", "world_model", "policy")]


def test_recordings_are_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    task = ["--config", "bioreactor", "--data.episode_length", "20"]
    assert main(["collect", *task, "--episodes", "12", "--out", "data/random.csv", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["episodes"], told["steps"]) == (12, 240)
    rows = read_rows("data/random.csv")
    assert rows["reward"].sum().item() / 12 == pytest.approx(told["return"], rel=1e-4)
    assert rows["action"].std() > 0.3

    data = ["--data.path", "data/random.csv", "--data.slice_length", "20", "--trainer.max_epochs", "1"]
    main(["fit", "--config", "offline_world_model", *data, *SHORT])
    assert "error held out" in capsys.readouterr().out
    env = ["--data.env", "bioreactor", "--data.env_options.episode_length", "20"]
    main(["fit", "--config", "offline_policy", *data, *env, *SHORT])
    out = capsys.readouterr().out
    assert "cost" in out
    assert "disagreement" in out
    assert list(Path("runs/offline_policy").rglob("trajectory.png"))
    (path,) = map(str, Path("runs/offline_policy").rglob("last.ckpt"))
    assert main(["export", path, "--out", "bundle", "--formats", "safetensors"]) == 0
    assert lit_awm.load_policy("bundle").sample(torch.zeros(2, 2)).shape == (2, 1)
    with pytest.raises(SystemExit):
        main(["evaluate", path])
    assert "what was learned from recordings can be exported" in capsys.readouterr().err


def test_what_a_policy_does_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["fit", "--config", "bioreactor", "--data.episode_length", "10", "--trainer.max_epochs", "1", *SHORT])
    checkpoint = next(Path("runs").rglob("last.ckpt"))
    capsys.readouterr()
    assert main(["collect", "--policy", str(checkpoint), "--episodes", "2", "--out", "policy.npz", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert main(["evaluate", str(checkpoint), "--json"]) == 0
    assert told["return"] == pytest.approx(json.loads(capsys.readouterr().out)["return"], rel=1e-4)
    first, second = read_rows("policy.npz")["action"].reshape(2, 10)
    torch.testing.assert_close(first, second)  # without noise


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--episodes", "0", "--out", "a.csv"], "episodes must be at least 1, got 0"),
        (["--noise", "-1", "--out", "a.csv"], "noise must be at least 0, got -1.0"),
        (["--noise", "0.5", "--out", "a.csv"], "noise must be 0 for random actions, got 0.5"),
        (["--seed", "-1", "--out", "a.csv"], "seed must be at least 0, got -1"),
        (["--out", "a.txt"], "out must end in .npz, .h5, .hdf5, .csv, .parquet, or be minari:NAME, got 'a.txt'"),
        (["--policy", "none.ckpt", "--out", "a.csv"], "checkpoint must be a file, got 'none.ckpt'"),
        (
            ["--policy", "none.ckpt", "--config", "harvest", "--out", "a.csv"],
            "a checkpoint brings its own recipe; leave out --config",
        ),
    ],
)
def test_mistakes_are_told(words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["collect", *words])
    assert message in capsys.readouterr().err


def test_a_dataset_of_minari_is_written_and_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    minari = pytest.importorskip("minari")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    task = ["--config", "bioreactor", "--data.episode_length", "20", "--episodes", "3", "--json"]
    collect = ["collect", *task, "--out", "minari:mine/bioreactor-v0"]
    assert main(collect) == 0
    told = json.loads(capsys.readouterr().out)
    dataset = minari.load_dataset("mine/bioreactor-v0")
    assert [len(episode.actions) for episode in dataset.iterate_episodes()] == [20, 20, 20]
    assert sum(float(episode.rewards.sum()) for episode in dataset) / 3 == pytest.approx(told["return"], rel=1e-5)
    assert main(["collect", *task, "--out", "same.npz"]) == 0
    rows, same = read_rows("minari:mine/bioreactor-v0"), read_rows("same.npz")
    assert (to_trajectories(rows) == to_trajectories(same)).all()
    with pytest.raises(SystemExit):
        main(collect)
    assert "out must name a new dataset, got 'mine/bioreactor-v0'" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        main(["collect", *task, "--out", "minari:no name"])
    assert "out must be minari: and a name such as mine/harvest-v0" in " ".join(capsys.readouterr().err.split())
