"""The examples run, in a short form."""

from __future__ import annotations

import runpy
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from lit_awm import recipes
from lit_awm.cli import main
from lit_awm.envs import factory, make_env

pytestmark = pytest.mark.program

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / name))


def test_an_actions_world_model_is_a_component_of_any_module() -> None:
    assert load("component.py")["main"](epochs=8) < 0.08  # 0.085 for the mean image


def test_an_algorithm_of_somebody_else_learns_on_our_data() -> None:
    assert load("own_algorithm.py")["main"](epochs=3, updates=30) < 35  # what random controls cost


@pytest.mark.parametrize("name", ["own_environment", "own_model"])
def test_a_part_of_the_users_own_is_used_by_a_recipe(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for suffix in (".py", ".yaml"):
        (tmp_path / name).with_suffix(suffix).write_text((EXAMPLES / name).with_suffix(suffix).read_text())
    monkeypatch.chdir(tmp_path)
    short = [f"--data.{phase}_updates=3" for phase in ("teacher", "world_model", "policy")]
    length = ["--data.episode_length=10", "--trainer.max_epochs=1"]
    main(["fit", "--config", "common", "--config", f"{name}.yaml", *length, *short])
    assert "cost" in capsys.readouterr().out


def test_the_backbone_of_the_example_extends_as_it_predicts_whole() -> None:
    backbone = load("own_model.py")["ConvolutionBackbone"](8)
    tokens = torch.randn(2, 20, 8)
    carry, parts = backbone.start(20), []
    for part in tokens.split([1, 7, 12], dim=1):
        carry, features = backbone.extend(carry, part)
        parts.append(features)
    assert_close(torch.cat(parts, dim=1), backbone(tokens))


def test_a_package_offers_models_by_the_names_of_their_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (EXAMPLES / "own_model.py").read_text().replace("ConvolutionBackbone", "OfferedBackbone")
    (tmp_path / "some_package.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    offered = EntryPoint("OfferedBackbone", "some_package:OfferedBackbone", recipes.ENTRY_POINTS)
    monkeypatch.setattr(recipes, "entry_points", lambda group: [offered])
    module, _ = recipes.build(["--model.world_model.backbone=OfferedBackbone"])
    assert type(module.policy.world_model.backbone).__name__ == "OfferedBackbone"


@pytest.mark.parametrize(
    ("text", "error"), [(None, "ModuleNotFoundError"), ("x = ", "SyntaxError"), ("1 / 0", "ZeroDivisionError")]
)
def test_a_model_that_cannot_be_loaded_is_named(
    text: str | None, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = f"broken_package_{error.lower()}"
    if text is not None:
        (tmp_path / f"{package}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    offered = EntryPoint("Broken", f"{package}:Broken", recipes.ENTRY_POINTS)
    monkeypatch.setattr(recipes, "entry_points", lambda group: [offered])
    with pytest.warns(UserWarning, match=rf"Broken \({package}:Broken\) cannot be loaded: {error}"):
        recipes.build([])


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
