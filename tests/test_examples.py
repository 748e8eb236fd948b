"""The examples run, in a short form."""

from __future__ import annotations

import runpy
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from lit_awm.cli import main
from lit_awm.envs import factory, make_env

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / name))


def test_an_actions_world_model_is_a_component_of_any_module() -> None:
    assert load("component.py")["main"](epochs=8) < 0.08  # 0.085 for the mean image


def test_an_algorithm_of_somebody_else_learns_on_our_data() -> None:
    assert load("own_algorithm.py")["main"](epochs=3, updates=30) < 35  # what random controls cost


def test_an_environment_of_the_users_own_is_learned_by_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("own_environment.py", "own_environment.yaml"):
        (tmp_path / name).write_text((EXAMPLES / name).read_text())
    monkeypatch.chdir(tmp_path)
    short = [f"--data.{phase}_updates=3" for phase in ("teacher", "world_model", "policy")]
    main(
        [
            "fit",
            "--config",
            "common",
            "--config",
            "own_environment.yaml",
            "--data.episode_length=10",
            "--trainer.max_epochs=1",
            *short,
        ]
    )
    assert "cost" in capsys.readouterr().out


def test_a_package_offers_environments_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = EntryPoint("water_tank", "examples.own_environment:WaterTank", factory.ENTRY_POINTS)
    monkeypatch.setattr(factory, "entry_points", lambda group: [offered])
    env = make_env("water_tank", 3, episode_length=5, k=0.1)
    assert env.rollout(5)["next", "reward"].shape == (3, 5, 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module.Env", "env must name a system, or a class that can be imported, got 'no_such_module.Env'"),
        ("pathlib.NoEnv", "got 'pathlib.NoEnv'"),
        ("pathlib.Path", "env must name a subclass of ControlEnv, got 'pathlib.Path'"),
    ],
)
def test_what_is_no_environment_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_env(name)
