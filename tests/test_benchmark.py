from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lit_awm.cli import main

pytestmark = pytest.mark.program

SIZES = {"horizons": "3,6", "batch": 2, "width": 8, "heads": 2, "layers": 1, "policy-width": 4, "repeats": 1}
COMMAND = ["benchmark", "imagination", "--device=cpu", *(f"--{name}={value}" for name, value in SIZES.items())]
PAGE = "before\n<!-- imagination: lit-awm benchmark imagination -->\nold\n<!-- end of imagination -->\nafter\n"


def test_one_object_with_a_row_for_each_method_and_horizon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--families", "actions,markov", "--out", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {row["horizon"] for row in result["rows"]} == {3, 6}
    assert {"actions", "markov"} == {row["family"] for row in result["rows"]}
    assert {"warm", "replay", "sequential", "naive", "torchrl"} <= {row["method"] for row in result["rows"]}
    assert all(row["time_ratio"] > 0 and row["memory_ratio"] > 0 for row in result["rows"])
    assert json.loads((tmp_path / "imagination.json").read_text()) == result
    assert (tmp_path / "imagination.png").stat().st_size > 1000


@pytest.mark.usefixtures("without_code")
def test_compiled_decoding_is_measured_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--families", "actions", "--out", str(tmp_path), "--json", "--compile"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["horizon"] for row in rows if row["method"] == "replay_compiled"] == [3, 6]
    assert all(row["time_ratio"] > 0 and row["memory_ratio"] > 0 for row in rows)


def test_the_table_of_a_page_is_replaced_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "performance.md"
    page.write_text(PAGE)
    options = ["--families", "actions_gru", "--out", str(tmp_path / "out"), "--docs", str(page)]
    assert main([*COMMAND, *options]) == 0
    assert "| actions_gru | warm |" in capsys.readouterr().out
    text = page.read_text()
    assert text.startswith("before\n<!--")
    assert text.endswith("-->\nafter\n")
    assert "old" not in text
    assert "| actions_gru | warm |" in text
    assert (tmp_path / "performance" / "imagination.png").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--families", "action"], "families must be of .*got 'action'. Did you mean 'actions'"),
        (["--horizons", "0"], "horizons must be at least 1, got 0"),
        (["--batch", "0"], "batch must be at least 1, got 0"),
        (["--heads", "3"], "heads must divide width 8, got 3"),
        (["--docs", "nowhere.md"], "docs must be a file with the lines <!-- imagination.* and, further down, <!-- end"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
        (["--out", __file__], "out must be a folder that can be written to"),
    ],
)
def test_mistakes_are_named(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main([*COMMAND, *options])
    assert raised.value.code == 2
    assert re.search(words, capsys.readouterr().err)
