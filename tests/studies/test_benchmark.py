"""The study of methods on systems: what it runs, that it goes on, and what it says of failures."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from lit_awm.analysis.runs import find_runs
from lit_awm.cli import main
from lit_awm.commands import study
from lit_awm.studies import benchmark
from lit_awm.studies.benchmark import (
    AGENTS,
    METHODS,
    REFERENCES,
    SYSTEMS,
    Job,
    as_comparison,
    as_markdown,
    round_down,
    run_study,
)

pytestmark = pytest.mark.program

TINY = [
    *("--data.world_model_updates=1", "--data.policy_updates=1", "--data.agent_updates=1"),
    *("--model.policy.hidden_dim=8", "--trainer.enable_checkpointing=false"),
]
COMMAND = ["study", "myriad", "--systems", "bioreactor", "--lengths", "10", "--seeds", "1", "--env-steps", "1600"]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_method_has_the_same_number_of_episodes() -> None:
    for name, method in METHODS.items():
        command = Job(name, "harvest", 200, 3).command(Path("x"), round_down(5000))
        words = dict(word.split("=", 1) for word in command if "=" in word)
        iterations = int(words["--trainer.max_epochs"])
        assert 12 + method.num_envs * (iterations - 1) + method.trials * iterations == 49
        assert (words["--data.episode_length"], words["--seed_everything"]) == ("200", "3")
        assert words["--config"] == (name if name in AGENTS else "harvest")  # with what it changes in the common recipe


@pytest.mark.parametrize(("length", "least"), [(10, 4900), (30, 3800), (50, 4400), (100, 4900)])
def test_of_short_episodes_there_are_as_many_as_make_up_the_steps(length: int, least: int) -> None:
    for name, method in METHODS.items():
        command = Job(name, "invasive_plant", length, 3).command(Path("x"), round_down(5000))
        words = dict(word.split("=", 1) for word in command if "=" in word)
        num_envs, warmup = int(words["--data.num_envs"]), int(words["--data.warmup_episodes"])
        iterations = int(words["--trainer.max_epochs"])
        steps = length * (warmup + num_envs * (iterations - 1) + method.trials * iterations)
        assert least <= steps <= 5000
        assert warmup % num_envs == 0
        assert words.get("--data.agent_updates") == (str(2 * num_envs * length) if name == "sac" else None)
        context = words.get("--model.policy.context_length")
        assert context == (str(length) if name == "online_dt" and length < 20 else None)  # no longer than an episode


def test_all_systems_of_the_testbed_are_studied() -> None:
    assert len(SYSTEMS) == 21


def test_a_study_runs_each_job_once_and_goes_on_with_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--methods", "sac", "--json", *TINY]) == 0
    first = json.loads(capsys.readouterr().out)["rows"]
    output = Path("runs/study/sac/bioreactor_10/seed_0/output.txt")
    said = output.read_bytes()
    assert main([*COMMAND, "--methods", "sac,markov", "--json", *TINY]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert output.read_bytes() == said
    assert [row["method"] for row in rows] == ["markov", "sac"]
    assert rows[1] == first[0]
    assert rows[1]["env_steps"] == 1300
    assert rows[1]["peak_memory_mb"] > 100
    with Path("runs/study/results.csv").open(newline="") as file:
        assert [row["method"] for row in csv.DictReader(file)] == ["markov", "sac"]
    assert "<h1>Methods on the Myriad testbed</h1>" in Path("runs/study/report.html").read_text()


def test_a_package_that_is_missing_is_named_before_the_first_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lit_awm.commands.study.find_spec", lambda _: None)
    with pytest.raises(SystemExit):
        main([*COMMAND, "--methods", "online_dt"])
    assert "pip install 'lit-awm[odt]', or leave it out of --methods" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_runs_of_other_settings_are_not_mixed(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--methods", "optimum", "--json"]
    assert main([*COMMAND, *options, *TINY]) == 0
    with pytest.raises(SystemExit, match="out must be a new folder for other settings.*agent_updates=1.*before"):
        main([*COMMAND, *options, "--data.agent_updates=2"])
    with pytest.raises(SystemExit, match="episodes 13 before, 17 now"):
        main([*COMMAND, *options, *TINY, "--env-steps", "2000"])


def test_a_file_of_settings_that_has_changed_makes_other_runs(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    options = ["--methods", "optimum", "--json", *TINY, f"--config={file}"]
    file.write_text("data: {init_args: {policy_batch_size: 4}}\n")
    assert main([*COMMAND, *options]) == 0
    assert main([*COMMAND, *options]) == 0
    file.write_text("data: {init_args: {policy_batch_size: 8}}\n")
    with pytest.raises(SystemExit, match="out must be a new folder for other settings.*files"):
        main([*COMMAND, *options])


def test_episodes_are_as_long_as_published_unless_told_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["study", "myriad", "--systems", "harvest,invasive_plant", "--methods", "optimum", "--json"]
    assert main(command) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["system"], row["episode_length"], row["regret"]) for row in rows] == [
        ("harvest", 100, 0),
        ("invasive_plant", 10, 0),
    ]


def test_seeds_are_as_many_as_asked_for_from_the_first_on(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Job] = []
    monkeypatch.setattr(study, "_run", lambda jobs, *_: found.extend(jobs) or 0)
    assert main([*COMMAND, "--methods", "actions,optimum", "--seeds", "2", "--first-seed", "4"]) == 0
    assert [(job.method, job.seed) for job in found] == [("actions", 4), ("actions", 5), ("optimum", 0)]


def test_references_are_scored_by_the_optimum(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--systems", "simple_case", "--lengths", "100", "--methods", ",".join(REFERENCES)]
    assert main([*COMMAND, *options, "--seeds", "3", "--json"]) == 0
    rows = {row["method"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert (rows["random"]["regret"], rows["constant"]["gap"], rows["optimum"]["regret"]) == (1, 1, 0)
    assert 0 < rows["receding"]["regret"] < 1
    assert rows["receding"]["cost"] == pytest.approx(-1.1993794222440242, rel=1e-5)  # found independently


def test_a_failed_run_is_named_and_does_not_hide_what_has_ended(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--methods", "sac,optimum", "--json", *TINY, "--model.nothing=1"]) == 1
    out, err = capsys.readouterr()
    assert [row["method"] for row in json.loads(out)["rows"]] == ["optimum"]
    assert "failed: runs/study/sac/bioreactor_10/seed_0/output.txt" in err
    assert "model.nothing is no argument" in Path("runs/study/sac/bioreactor_10/seed_0/output.txt").read_text()
    assert Path("runs/study/results.md").is_file()


def test_an_error_of_one_job_is_told_in_its_output_and_ends_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "_fit", lambda *_: (_ for _ in ()).throw(OSError("the disk is gone")))
    jobs = [Job("sac", "harvest", 10, seed) for seed in range(2)] + [Job("optimum", "harvest", 100, 0)]
    rows, failed = run_study(jobs, Path("out"), 16, 1, progress=False)
    assert ([row["method"] for row in rows], failed) == (["optimum"], jobs[:2])
    assert "the disk is gone" in (jobs[1].folder(Path("out")) / "output.txt").read_text()


def test_a_study_that_is_stopped_begins_no_further_run(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Job] = []

    def stop(job: Job, **_: object) -> bool:
        begun.append(job)
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "_run", stop)
    with pytest.raises(KeyboardInterrupt):
        run_study([Job("sac", "harvest", 10, seed) for seed in range(50)], Path("out"), 16, 1, progress=False)
    assert len(begun) < 50


def test_a_file_of_settings_makes_no_other_job_of_one() -> None:
    Path("mine.yaml").write_text("{seed_everything: 5, data: {init_args: {env: harvest, turns: 1}}}")
    options = ["--config=mine.yaml", *TINY]
    rows, failed = run_study(
        [Job("actions_untaught", "bioreactor", 10, 1)], Path("out"), 16, 1, options, progress=False
    )
    assert (len(rows), failed) == (1, [])
    (recipe,) = Path("out").rglob("lit_awm_config.yaml")
    text = recipe.read_text()
    assert "env: bioreactor" in text
    assert "seed_everything: 1" in text


def test_a_method_of_a_study_is_one_whatever_the_recipe_of_a_system() -> None:
    jobs = [Job("actions_untaught", system, 10, 0) for system in ("bioreactor", "timber_harvest")]
    options = [*TINY, "--data.turns=1"]
    assert run_study(jobs, Path("out"), 16, 1, options, progress=False)[1] == []
    assert {run.method for run in find_runs([Path("out")])} == {"actions_untaught"}
    assert run_study(jobs[:1], Path("more"), 16, 1, TINY, progress=False)[1] == []
    assert {run.method for run in find_runs([Path("out"), Path("more")])} == {
        "actions_untaught 1",
        "actions_untaught 2",
    }
    run_study([Job("random", "harvest", 100, 0)], Path("more"), 16, 1, TINY, progress=False)
    assert len(Path("more/results.csv").read_text().splitlines()) == 3  # the others of the folder, too


def test_results_of_unknown_origin_are_not_taken_over() -> None:
    job = Job("optimum", "harvest", 100, 0)
    run_study([job], Path("out"), 16, 1, progress=False)
    Path("out/study.json").unlink()
    with pytest.raises(ValueError, match="nobody knows how they came"):
        run_study([job], Path("out"), 16, 1, progress=False)


def test_a_table_has_the_median_over_seeds_with_the_range() -> None:
    rows = [
        {"system": "s", "episode_length": 10, "method": "sac", "env_steps": 5000.0, "cost": cost, "regret": cost / 100}
        | {"train_seconds": 7.2, "peak_memory_mb": 500.0}
        for cost in (1.0, 5.0, 2.0)
    ]
    assert list(as_comparison(rows)) == ["| system | steps | sac |", "|---|---|---|", "| s | 10 | 2.00% |"]
    line = list(as_markdown(rows))[-1]
    assert line == "| s | 10 | sac | 3 | 5,000 | 2 (1 to 5) | 2.000% (1.000% to 5.000%) | - | 7 s | 500 MB |"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--methods", "sacc"], "sacc.*mean 'sac'"),
        (["--systems", "harvesd"], "harvesd.*mean 'harvest'"),
        (["--lengths", "10,²"], "lengths must be whole numbers"),
        (["--methods", "random", "--data.env_options={dt: 0.1}"], "methods must not hold random"),
        (["--methods", "random", "--data.init_args.env_options.dt=0.1"], "methods must not hold random"),
        (["--lengths", "10,x"], "lengths must be whole numbers from 1 on, with commas between them, got '10,x'"),
        (["--seeds", "0"], "seeds must be at least 1, got 0"),
        (["--first-seed", "-1"], "first_seed must be at least 0, got -1"),
        (["--env-steps", "100"], "env_steps must be at least 1300, got 100"),
        (["--data.capacity", "300"], "must be written as --data.name=value and the like, got --data.capacity"),
        (["--seed=3"], "must be written as --data.name=value and the like, got --seed=3. Did you mean '--seeds'?"),
        (["--seed_everything=3"], "must be written as --data.name=value and the like, got --seed_everything=3"),
        (["--data.env=tumour"], "must not hold --data.env=tumour, which the study sets for every run"),
        (["--data.init_args.num_envs=3"], "must not hold --data.init_args.num_envs=3"),
        (["--trainer.max_epochs=3"], "must not hold --trainer.max_epochs=3"),
    ],
)
def test_mistakes_are_named_before_the_first_run(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*COMMAND, *options])
    error = capsys.readouterr().err
    assert re.search(words, error), error
    assert not Path("runs").exists()
