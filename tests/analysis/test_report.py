"""The report of runs, on logs whose numbers are known."""

from __future__ import annotations

import csv
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_awm.analysis.comparison import (
    aggregate,
    by_length,
    final_scores,
    improvements,
    learning_curve,
    shared_tasks,
    unfinished,
)
from lit_awm.analysis.report import write_report
from lit_awm.analysis.runs import differences, find_runs
from lit_awm.cli import main

WORLD_MODEL = {"world_model": {"class_path": "lit_awm.models.ActionsWorldModel"}}
ACTIONS = {"class_path": "lit_awm.modules.AlternatingModule", "init_args": WORLD_MODEL}
SAC = {"class_path": "lit_awm.modules.SACModule", "init_args": {"discount": 0.99}}
MODELS = {"actions": ACTIONS, "SAC": SAC}


def write_run(root: Path, model: dict[str, Any], env: str, seed: int, regrets: list[float], length: int = 100) -> Path:
    """Write the folder of a run with an evaluation every 400 steps."""
    folder = root / f"{env}_{length}_{model['class_path'][-9:]}_{seed}"
    folder.mkdir(parents=True)
    data = {"env": env, "episode_length": length, "seed": seed, "agent_updates": length}
    trainer = {"max_epochs": 5, "logger": {"init_args": {"save_dir": str(folder)}}}
    recipe = {
        "seed_everything": seed,
        "trainer": trainer,
        "model": model,
        "data": {"class_path": "d", "init_args": data},
    }
    (folder / "lit_awm_config.yaml").write_text(yaml.safe_dump(recipe))
    rows = ["step,policy/grad_norm,env_steps,eval/cost,eval/regret,eval/gap,time/elapsed_s,memory/peak_mb"]
    for i, regret in enumerate(regrets, start=1):
        rows += [f"{i},{2 + i},,,,,,", f"{i},,{400 * i},{1 + regret},{regret},{2 * regret},,"]
        rows += [f"{i},,,,,,{10 * i},{300 + i}"]
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed in range(3):
        for env in ("bioreactor", "harvest"):
            write_run(tmp_path / "ours", ACTIONS, env, seed, [0.5, 0.01 * (seed + 1)])
            write_run(tmp_path / "theirs", SAC, env, seed, [0.9, 0.3 + 0.1 * seed])
        write_run(tmp_path / "ours", ACTIONS, "harvest", seed, [0.5, 0.02], length=1000)
        write_run(tmp_path / "theirs", SAC, "harvest", seed, [0.9, 0.8], length=1000)
    return tmp_path


def test_by_how_much_an_end_state_is_missed_is_read_where_there_is_one(tmp_path: Path) -> None:
    folder = write_run(tmp_path, SAC, "cartpole", 0, [0.9])
    (folder / "metrics.csv").write_text("env_steps,eval/cost,eval/target_error\n400,9,0.3\n800,8,0.2\n1200,7,\n")
    (run,) = find_runs([tmp_path])
    assert [each.get("target_error") for each in run.evaluations] == [0.3, 0.2, None]


def test_runs_are_named_after_their_model_and_told_apart_by_their_settings(root: Path) -> None:
    runs = find_runs([root])
    assert len(runs) == 18
    assert {run.method for run in runs} == {"actions", "SAC"}
    assert differences(runs)["model.class_path"] == {name: model["class_path"] for name, model in MODELS.items()}
    other = {"class_path": "lit_awm.modules.SACModule", "init_args": {"discount": 0.9}}
    write_run(root / "other", other, "harvest", 7, [0.1])
    found = find_runs([root])
    assert {run.method for run in found} == {"actions", "SAC 1", "SAC 2"}
    assert differences(found)["model.init_args.discount"] == {"actions": "", "SAC 1": "0.9", "SAC 2": "0.99"}


def test_seed_and_length_of_episodes_make_no_other_method(root: Path) -> None:
    assert differences(find_runs([root / "theirs"])) == {}


def test_methods_are_compared_by_their_recipes_of_a_task_that_they_share(tmp_path: Path) -> None:
    for env, discount in (("bioreactor", 0.5), ("harvest", 0.99)):
        write_run(tmp_path / "ours", ACTIONS | {"init_args": WORLD_MODEL | {"discount": discount}}, env, 0, [0.1])
    write_run(tmp_path / "theirs", SAC, "harvest", 0, [0.1])
    runs = sorted(find_runs([tmp_path]), key=lambda run: run.task)
    for run in runs:
        run.method = run.method.split()[0]  # as in a study, whatever the recipe of a system
    assert "model.init_args.discount" not in differences(runs)


def test_runs_that_have_not_come_as_far_as_others_are_named_and_left_out(root: Path) -> None:
    behind = write_run(root / "ours", ACTIONS, "harvest", 9, [0.5])
    runs = find_runs([root])
    assert [run.folder for run in unfinished(runs)] == [behind]
    page = write_report(runs, root / "page", "Title", "command").read_text()
    assert f"evaluated more often: {behind}." in page
    assert page.count("18 runs") == 1


def test_a_system_with_episodes_of_one_length_hides_no_other_by_length(root: Path) -> None:
    before = by_length(find_runs([root]))
    write_run(root / "ours", ACTIONS, "invasive_plant", 0, [0.5, 0.1], length=10)
    assert before
    assert by_length(find_runs([root])) == before


def test_a_fixed_horizon_is_another_method_than_that_of_an_episode(tmp_path: Path) -> None:
    for number, (horizon, length) in enumerate(((50, 50), (100, 100), (50, 100))):
        model = {"class_path": "lit_awm.modules.SACModule", "init_args": {"horizon": horizon}}
        write_run(tmp_path / str(number), model, "harvest", 0, [0.1], length)
    runs = find_runs([tmp_path])
    assert [(run.method, run.episode_length) for run in runs] == [("SAC 1", 50), ("SAC 1", 100), ("SAC 2", 100)]


def test_runs_without_a_seed_are_all_kept(tmp_path: Path) -> None:
    for number in range(2):
        recipe = write_run(tmp_path / str(number), SAC, "harvest", 0, [0.1 * number]) / "lit_awm_config.yaml"
        recipe.write_text(recipe.read_text().replace("seed_everything: 0", "seed_everything: false"))
    assert len(find_runs([tmp_path])) == 2


def test_what_only_watches_makes_no_other_method(tmp_path: Path) -> None:
    for seed in range(2):
        recipe = write_run(tmp_path, SAC, "harvest", seed, [0.1]) / "lit_awm_config.yaml"
        settings = yaml.safe_load(recipe.read_text())
        settings["trainer"] |= {"enable_progress_bar": bool(seed), "callbacks": [{"class_path": "x.Throughput"}] * seed}
        recipe.write_text(yaml.safe_dump(settings))
    assert {run.method for run in find_runs([tmp_path])} == {"SAC"}


def test_a_task_without_an_optimum_does_not_hide_the_others(root: Path) -> None:
    rows = by_length(find_runs([root]))
    assert rows
    folder = write_run(root / "more", SAC, "gym", 0, [0.1], 500)
    log = folder / "metrics.csv"
    log.write_text(log.read_text().replace("eval/regret", "other").replace("eval/gap", "another"))
    assert by_length(find_runs([root])) == rows


def test_a_score_that_is_not_a_number_counts_as_the_worst(root: Path) -> None:
    folder = next(path for path in (root / "ours").iterdir() if path.name == "harvest_100_ingModule_1")
    log = folder / "metrics.csv"
    log.write_text(log.read_text().replace("1,,400,1.5,0.5,", "1,,400,1.5,nan,"))
    runs = [run for run in find_runs([root]) if (run.method, run.task) == ("actions", "harvest, 100 steps")]
    assert learning_curve(runs, "regret")[0][1] == (0.5, 0.5, float("inf"))
    assert learning_curve(runs[::-1], "regret")[0][1] == (0.5, 0.5, float("inf"))


def test_a_number_that_happens_to_be_the_length_makes_no_other_method(tmp_path: Path) -> None:
    model = {"class_path": "lit_awm.modules.SACModule", "init_args": {"updates": 100}}
    for length in (100, 200):
        write_run(tmp_path, model, "harvest", 0, [0.1], length)
    runs = find_runs([tmp_path])
    assert {run.method for run in runs} == {"SAC"}
    assert differences(runs) == {}


def test_a_number_that_differs_as_the_lengths_do_makes_another_method_unless_it_is_one(tmp_path: Path) -> None:
    for length in (50, 100):
        sizes = {"batch_size": length, "max_horizon": length}
        model = {"class_path": "lit_awm.modules.SACModule", "init_args": sizes}
        write_run(tmp_path, model, "harvest", 0, [0.1], length)
    assert set(differences(find_runs([tmp_path]))) == {"model.init_args.batch_size"}


def test_a_run_that_learns_from_recordings_spoils_no_report(root: Path) -> None:
    before = len(find_runs([root]))
    recordings = root / "recordings"
    recordings.mkdir()
    recipe = {"seed_everything": 0, "model": SAC, "data": {"class_path": "d", "init_args": {"path": "log.csv"}}}
    (recordings / "lit_awm_config.yaml").write_text(yaml.safe_dump(recipe | {"trainer": {}}))
    assert len(find_runs([root])) == before


def test_of_a_run_that_was_begun_anew_the_furthest_counts(root: Path) -> None:
    def told() -> list[tuple[str, str, int, float]]:
        return sorted((run.method, run.task, run.seed, run.last["regret"]) for run in find_runs([root]))

    before = told()
    write_run(root / "again", SAC, "harvest", 0, [0.9])
    assert told() == before


def test_scores_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path, SAC, "harvest", 0, [float("nan")])
    with pytest.raises(ValueError, match="must have finite scores, got .*nan.* Leave the run out"):
        find_runs([folder])


def test_the_tables_hold_the_last_scores(root: Path) -> None:
    runs = find_runs([root])
    assert shared_tasks(runs) == ["bioreactor, 100 steps", "harvest, 100 steps", "harvest, 1000 steps"]
    first, second = aggregate(runs)
    assert (first["method"], first["runs"]) == ("actions", 9)
    assert first["iqm"].estimate == pytest.approx(0.02, abs=1e-9)  # of .01 .01 .02 .02 .02 .02 .02 .03 .03
    assert second["iqm"].low > first["iqm"].high
    assert (first["seconds"], first["memory_mb"]) == (20, 302)
    row = next(row for row in final_scores(runs) if (row["task"], row["method"]) == ("harvest, 100 steps", "SAC"))
    assert row["regret"] == pytest.approx((0.4, 0.3, 0.5))
    assert row["gap"] == pytest.approx((0.8, 0.6, 1.0))
    assert improvements(runs) == {("actions", "SAC"): (1.0, 1.0, 1.0), ("SAC", "actions"): (0.0, 0.0, 0.0)}
    lengths = {(row["method"], row["episode_length"]): row["iqm"].estimate for row in by_length(runs)}
    expected = {("actions", 100): 0.02, ("actions", 1000): 0.02, ("SAC", 100): 0.4, ("SAC", 1000): 0.8}
    assert lengths == pytest.approx(expected)


def test_a_learning_curve_is_the_median_over_seeds_where_all_were_evaluated(root: Path) -> None:
    runs = [run for run in find_runs([root]) if run.task == "bioreactor, 100 steps" and run.method == "actions"]
    runs[0].evaluations.append({"env_steps": 1200.0, "regret": 0.0})
    curve = learning_curve(runs, "regret")
    assert [step for step, _ in curve] == [400, 800]
    assert curve[1][1] == pytest.approx((0.02, 0.01, 0.03))


class Page(HTMLParser):
    """What a page loads, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        self.loads += [names[name] or "" for name in ("src", "href", "xlink:href") if name in names]
        self.loads += [tag] if tag in ("script", "link", "iframe") else []
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_but_itself_and_says_what_the_tables_say(root: Path) -> None:
    path = write_report(find_runs([root]), root / "report", "A <title>", "lit-awm report x")
    page = Page()
    text = path.read_text(encoding="utf-8")
    page.feed(text)
    assert not page.open
    assert all(each.startswith("#") for each in page.loads)
    assert "url(http" not in text
    assert "@import" not in text
    for words in ("A <title>", "18 runs of 2 methods on 3 tasks", "2.00 %", "lit-awm report x", "model.class_path"):
        assert words in page.text
    for name in ("learning_curves", "performance_profiles", "episode_length", "gradient_norms"):
        assert (path.parent / f"{name}.png").stat().st_size > 1000
        assert (path.parent / f"{name}.svg").read_text().startswith("<svg")
    with (path.parent / "evaluations.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 36
    assert {row["seed"] for row in rows} == {"0", "1", "2"}


def test_a_single_run_gets_a_page_too(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = next((root / "theirs").iterdir())
    assert main(["report", str(folder), "--out", str(root / "one")]) == 0
    assert "1 runs" in capsys.readouterr().out
    assert "What differs" not in (root / "one" / "report.html").read_text()


def test_tasks_without_an_optimum_are_scored_by_cost(tmp_path: Path) -> None:
    folder = write_run(tmp_path, SAC, "gym/Pendulum-v1", 0, [0.5])
    log = folder / "metrics.csv"
    log.write_text(log.read_text().replace(",eval/regret,eval/gap", ",a,b"))
    page = write_report(find_runs([tmp_path]), tmp_path / "report", "x", "y").read_text()
    assert "No optimum is known" in page
    write_run(tmp_path, SAC, "harvest", 0, [0.5])
    page = write_report(find_runs([tmp_path]), tmp_path / "both", "x", "y").read_text()
    assert "No optimum is known" in page
    assert (tmp_path / "both" / "learning_curves_cost.svg").is_file()


def test_folders_without_runs_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, words in (
        (tmp_path, "nothing in it has a lit_awm_config.yaml"),
        (tmp_path / "no", "runs must be folders"),
    ):
        with pytest.raises(SystemExit):
            main(["report", str(path)])
        assert words in capsys.readouterr().err
    broken = tmp_path / "broken"
    broken.mkdir()
    for text in ("a: b", "seed_everything: 0\ndata: {init_args: {episode_length: 3}}", "[", "- 1"):
        (broken / "lit_awm_config.yaml").write_text(text)
        with pytest.raises(ValueError, match="broken must hold a run of a recipe"):
            find_runs([tmp_path])
