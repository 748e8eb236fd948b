from __future__ import annotations

import json
from pathlib import Path

import pytest

from lit_awm.cli import main
from lit_awm.studies import STUDIES


def test_the_equivalence_of_recurrent_actions_models_and_markovian_ones_holds() -> None:
    verdict = STUDIES["equivalence"](True)
    assert verdict.holds
    assert max(row["horizon"] for row in verdict.rows) == 200
    assert max(row["relative_error"] for row in verdict.rows) <= 1e-10


def test_the_verdict_on_growth_follows_from_its_rows() -> None:
    verdict = STUDIES["growth"](True)
    fits = {(row["seed"], row["family"]): row for row in verdict.rows}
    wins = {
        family: [
            fit["exponential_error"] < fit["polynomial_error"] for (_, name), fit in fits.items() if name == family
        ]
        for family in ("markov", "history", "actions", "actions_attention")
    }
    assert sum(wins["markov"]) > len(wins["markov"]) / 2
    assert not any(wins["actions"] + wins["actions_attention"])
    assert verdict.holds == (sum(wins["history"]) > len(wins["history"]) / 2)


def test_a_study_is_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "growth", "--quick", "--json"]) == 0
    (study,) = json.loads(capsys.readouterr().out)["studies"]
    assert (study["name"], study["quick"]) == ("growth", True)
    assert json.loads(Path("runs/studies/growth.json").read_text()) == study
    assert Path("runs/studies/growth.png").is_file()


@pytest.mark.parametrize("arguments", [[], ["growth", "--all"], ["grwoth"]])
def test_one_study_or_all_are_asked_for(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", *arguments])
    assert stop.value.code == 2
    assert "growth" in capsys.readouterr().err
