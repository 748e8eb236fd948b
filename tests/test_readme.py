"""The examples of the README and of the documentation run as they stand."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

from lit_awm.cli import main

pytestmark = pytest.mark.program

NUMBERS = {"oracle": "starts", "benchmark": "batch", "study": "seeds", "collect": "episodes"}
NUMBERS |= dict.fromkeys(("gradients", "landscape"), "states")
OTHERS = ("reproduce", "report", "evaluate", "export", "play", "doctor", "validate", "envs")
COMMANDS = "|".join(["fit", *NUMBERS, *OTHERS])  # whose words are checked
ROOT = Path(__file__).parent.parent
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))}


@pytest.mark.parametrize("page", PAGES)
def test_the_python_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGES[page], flags=re.DOTALL)
    assert blocks
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), namespace)
    if page == "README.md":
        assert namespace["policy"].network.layers[0].weight.grad.abs().sum() > 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", PAGES)
def test_the_command_lines_parse(
    page: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("trainer: {max_epochs: 3}\n")
    commands = re.findall(
        rf"(?:^|`)(?:\w+=\S+ |srun )*lit-awm ((?:{COMMANDS}) .*?)(?: > \S+)?(?: +#.*|`.*)?$",
        PAGES[page],
        flags=re.MULTILINE,
    )
    assert len(commands) >= 4
    for command in (each for each in commands if "..." not in each):
        arguments = [word for word in shlex.split(command) if word != "--print_config"]
        monkeypatch.setattr("sys.argv", ["lit-awm"])
        if "--help" in arguments:
            assert main(arguments) == 0, command
        elif arguments[0] == "fit":
            with pytest.raises(SystemExit) as stop:
                main([*arguments, "--print_config"])
            assert stop.value.code == 0, command
        elif arguments[0] in OTHERS:
            with pytest.raises(SystemExit):
                main([*arguments, "--nothing"])
            assert "unrecognized arguments: --nothing" in capsys.readouterr().err, command
        else:  # all else is in order if a number of 0 is what is complained about
            number = NUMBERS[arguments[0]]
            with pytest.raises(SystemExit):
                main([*arguments, f"--{number}", "0"])
            assert f"{number} must be at least 1, got 0" in capsys.readouterr().err, command


def test_every_figure_is_there() -> None:
    for name, page in PAGES.items():
        folder = ROOT if name == "README.md" else ROOT / "docs"
        for link in re.findall(r"!\[.*?\]\((.*?)\)", page):
            assert (folder / link).is_file(), link


def test_every_script_is_there() -> None:
    for page in PAGES.values():
        for script in re.findall(r"^(?:\w+=\S+ )?python (\S+\.py)", page, flags=re.MULTILINE):
            assert (ROOT / script).is_file(), script


def test_the_table_of_optima_is_that_of_the_file() -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "draw_environments.py"))
    assert script["table"]() in PAGES["environments.md"]


def test_the_tables_of_results_are_those_of_the_runs() -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "results.py"))
    assert (
        script["replace"](PAGES["results.md"], script["tables"](script["read"](script["FILE"]))) == PAGES["results.md"]
    )


def rows_of(names: str, *rows: tuple[str, ...]) -> list[dict[str, str]]:
    """Return rows of a table of runs: the method, system, episode length and seed of each, and more columns."""
    columns = "method", "system", "episode_length", "seed", *names.split()
    return [dict(zip(columns, row, strict=True)) for row in rows]


def test_a_run_of_results_takes_the_place_of_an_older_one() -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "results.py"))
    old = rows_of("regret", ("sac", "harvest", "100", "0", "0.5"), ("actions", "harvest", "1000", "0", "0.1"))
    new = rows_of(
        "regret",
        ("sac", "harvest", "100", "0", "0.4"),
        ("actions", "harvest", "200", "0", "0.2"),
        ("random", "x", "9", "0", ""),
    )
    assert script["merge"](old, new) == [new[1], old[1], new[0]]


def test_a_study_with_other_settings_is_no_part_of_the_results(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "results.py"))
    (tmp_path / "results.csv").write_text("method,system\nactions,harvest\n")
    with pytest.raises(SystemExit, match=r"study\.json must be a file"):
        script["read_study"](tmp_path)
    (tmp_path / "study.json").write_text('{"options": []}')
    assert script["read_study"](tmp_path) == [{"method": "actions", "system": "harvest"}]
    (tmp_path / "study.json").write_text('{"options": ["--model.judge=false"]}')
    with pytest.raises(SystemExit, match="recipes as they are, got one with --model.judge=false"):
        script["read_study"](tmp_path)


def test_what_teaching_brings_is_told_of_systems_with_both() -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "results.py"))
    rows = rows_of(
        "regret gap",
        ("actions", "bioreactor", "100", "0", "0.1", ""),
        ("actions", "harvest", "100", "0", "0.1", "0.2"),
        ("actions", "harvest", "100", "1", "0.3", "0.4"),
        ("actions_untaught", "harvest", "100", "0", "0.5", "0.6"),
    )
    assert list(script["ablation"](rows)) == [
        "| system | `actions`: regret | `actions`: gap | `actions_untaught`: regret | `actions_untaught`: gap |",
        "|---|---|---|---|---|",
        "| harvest | 20.00% (10.00% to 30.00%) | 30.00% (20.00% to 40.00%) | 50.00% | 60.00% |",
        "| interquartile mean of all | 20.00% (10.00% to 30.00%) | | 50.00% | |",
    ]


def test_end_states_are_told_of_the_systems_that_have_one() -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "results.py"))
    rows = rows_of(
        "regret target_error",
        ("actions", "cartpole", "100", "0", "0.1", "0.01"),
        ("actions", "cartpole", "100", "1", "0.1", "0.03"),
        ("actions", "harvest", "100", "0", "0.1", ""),
        ("sac", "cartpole", "100", "0", "0.9", ""),
    )
    assert list(script["ends"](rows)) == [
        "| system | optimum | `actions` |",
        "|---|---|---|",
        "| cartpole | 0.20% | 2.00% (1.00% to 3.00%) |",
    ]
