"""The scripts that make the figures of the pages run, in a small way."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.program

FOLDER = Path(__file__).parent.parent / "benchmarks"
SMALL = [
    *("--data.episode_length=10", "--data.num_envs=2", "--data.warmup_episodes=2", "--data.turns=1"),
    *(f"--data.{phase}_updates=2" for phase in ("teacher", "world_model", "policy")),
]


def load(name: str, **constants: Any) -> ModuleType:
    """Return a script as a module, with other constants."""
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for constant, value in constants.items():
        assert hasattr(script, constant)
        setattr(script, constant, value)
    return script


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], script: ModuleType, *words: str) -> str:
    """Return what a script prints."""
    monkeypatch.setattr(sys, "argv", ["script", *words])
    script.main()
    return capsys.readouterr().out


def test_an_environment_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "environments").mkdir()
    load("draw_environments", DOCS=tmp_path).draw("simple_case")
    assert (tmp_path / "environments" / "simple_case.png").is_file()


def test_the_memory_of_a_buffer_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    script = load("buffer_memory", EPISODE=10, ENVS=4)
    out = run(monkeypatch, capsys, script, "--steps", "80", "--quiet", "--folder", str(tmp_path))
    assert out.startswith("80 steps: ")


@pytest.mark.parametrize("busy", [0.0, 0.01])
def test_collectors_are_measured(busy: float) -> None:
    script = load("scaling", STEPS=5, ENVS=2, ROUNDS=2)
    assert script.measure_collector("single", 1, busy)["steps_per_s"] > 0


def test_what_more_processes_cost_is_predicted() -> None:
    script = load("scaling")
    one = {"processes": 1, "scaling": script.WEAK, "updates_per_s": 10.0, "share": 0.0, "bytes": 4}
    two = one | {"processes": 2, "latency": 1e-3, "seconds_per_byte": 1e-9}
    rows = script.predictions([one, two])
    assert [row["processes"] for row in rows] == 2 * list(script.COUNTS)
    assert rows[0]["efficiency"] == 1.0
    assert rows[4]["efficiency"] < rows[1]["efficiency"] < 1.0


def test_a_recipe_is_profiled() -> None:
    times, iterations = load("profile_recipe").profile("simple_case", 2, SMALL)
    assert iterations == 1
    watched = {"loss of the world model", "loss of the teacher", "labels of the teacher", "imagined return", "trial"}
    assert watched | {"backward passes", "optimizers", "evaluation", "collecting episodes"} <= times.keys()


def test_steps_a_second_are_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(monkeypatch, capsys, load("env_throughput", STEPS=3, REPEATS=1), "simple_case", "--batches", "2")
    assert "| simple_case | 2 | " in out


@pytest.mark.parametrize("variant", range(3))
def test_variants_of_a_transformer_are_scored(variant: int) -> None:
    script = load("architecture", EPISODES=3, HELD_OUT_ROUNDS=1, UPDATES=2)
    row = script.score(script.Job(list(script.VARIANTS)[variant], "simple_case", 0))
    assert row["error"] > 0


def test_the_agent_of_another_package_sees_an_environment_as_ours_does() -> None:
    pytest.importorskip("gymnasium")
    env = load("sac_parity").AsGymnasium("simple_case", 0)
    first, _ = env.reset()
    ends = [env.step([0.5])[2] for _ in range(100)]
    assert env.observation_space.contains(first)
    assert ends == [False] * 99 + [True]


def test_agents_of_both_packages_make_as_many_updates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("gymnasium")
    script, given = load("sac_parity"), list[list[str]]()

    def study(jobs: Any, out: Any, episodes: int, workers: int, options: list[str], progress: bool) -> list[Any]:
        given.append(jobs[0].command(tmp_path, episodes, options))
        raise InterruptedError

    monkeypatch.setattr(script, "run_whole_study", study)
    with pytest.raises(InterruptedError):
        script.learn(1, 1, tmp_path, False)
    assert [word for word in given[0] if "agent_updates" in word][-1] == "--data.agent_updates=100"  # one a step


def test_rows_of_runs_are_taken_over_with_their_scores_and_no_other_budget() -> None:
    merge = load("results").merge
    row = {"method": "sac", "system": "harvest", "episode_length": "100", "seed": "0", "env_steps": "4900.0"}
    old = [row | {"regret": "0.2"}]
    assert merge(old, [row | {"regret": "0.1"}]) == [row | {"regret": "0.1"}]
    assert merge(old, [row | {"regret": ""}, {**row, "seed": "1"}]) == old
    with pytest.raises(SystemExit, match=r"env_steps of sac harvest 100 0 must be 4900.0 as before, got 9900"):
        merge(old, [row | {"regret": "0.1", "env_steps": "9900"}])


def test_a_weight_that_is_no_number_is_a_difference(tmp_path: Path) -> None:
    for name, weight in (("ours", torch.nan), ("theirs", 1.0)):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        torch.save({"state_dict": {"weight": torch.tensor([weight])}}, tmp_path / name / "checkpoints" / "last.ckpt")
        (tmp_path / name / "metrics.csv").write_text("step\n1\n")
    assert load("kills").compare(tmp_path / "ours", tmp_path / "theirs") == (torch.inf, 0)


def test_an_optimum_is_found_anew() -> None:
    record = load("optima", DEFAULT_STARTS=1).describe("simple_case_with_bounds")
    assert record["cost"] < record["constant_cost"] < record["random_cost"]
