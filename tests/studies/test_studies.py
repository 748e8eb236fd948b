"""Each study: its jobs do what they say, and its verdict follows from their rows, whichever way they point."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_awm.cli import main
from lit_awm.studies import STUDIES, choice, detachment, growth, horizon
from lit_awm.studies.choice import CONTACT, CREDIT, Choice, ascend
from lit_awm.studies.jobs import run_jobs
from lit_awm.studies.verdict import is_better

Rows = list[dict[str, Any]]


def fake(monkeypatch: pytest.MonkeyPatch, module: Any, **functions: Callable[[Any], dict[str, Any]]) -> None:
    """Let the jobs of a study give what the functions of the same names say, in this process."""

    def run(function: Any, jobs: Any, title: str) -> Rows:
        return [functions[function.__name__](job) for job in jobs]

    monkeypatch.setattr(module, "run_jobs", run)


def test_jobs_run_in_other_processes_and_come_back_in_order() -> None:
    assert run_jobs(dict, [[("job", index)] for index in range(4)], "test") == [{"job": index} for index in range(4)]


# -- equivalence ------------------------------------------------------------------------------------------------------


def test_the_equivalence_of_recurrent_actions_models_and_markovian_ones_holds() -> None:
    verdict = STUDIES["equivalence"](True)
    assert verdict.holds
    assert max(row["horizon"] for row in verdict.rows) == 200
    assert max(row["relative_error"] for row in verdict.rows) <= 1e-10


# -- growth -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fed_back", "direct", "holds"),
    [(1.1, 0.0, True), (1.0, 0.0, False), (1.0005, 0.0, False), (1.1, 3.5, False), (1.1, 2.9, True)],
)
def test_the_verdict_on_growth_is_that_of_the_fits(
    fed_back: float, direct: float, holds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(job: growth.Job) -> dict[str, Any]:
        kind = "fitted" if job.is_fitted else "random"
        is_direct = job.family in growth.DIRECT
        norms = [h**direct if is_direct else h * fed_back**h for h in job.horizons]
        same = {"models": kind, "family": job.family, "seed": job.seed, "eta": None if is_direct else 1.5}
        return {"rows": [{"horizon": h, "norm": norm, **same} for h, norm in zip(job.horizons, norms, strict=True)]}

    fake(monkeypatch, growth, measure=measure)
    assert STUDIES["growth"](True).holds is holds


def test_random_models_of_the_two_kinds_differ_in_growth() -> None:
    horizons = (10, 20, 30, 40, 50, 60)
    fits = {
        family: growth._fits(growth.measure(growth.Job(family, 0, horizons, 0))["rows"])[family]
        for family in ("markov", *growth.DIRECT)
    }
    assert fits["markov"].rate > 1.1
    assert fits["markov"].power > 5
    assert all(fits[family].power < 3 for family in growth.DIRECT)


def test_eta_is_the_largest_stretch_of_a_step() -> None:
    model = growth.RANDOM["markov"](5)
    states, actions = torch.randn(4, 6, growth.STATE_DIM), torch.zeros(4, 6, growth.ACTION_DIM)
    at_origin = growth._eta(model, 0 * states, actions)
    assert at_origin == pytest.approx(growth.ETA, rel=1e-4)
    assert growth._eta(model, states, actions) != pytest.approx(at_origin, rel=1e-3)


@pytest.mark.parametrize("family", growth.FITTED)
def test_every_family_is_fitted_and_measured(family: str) -> None:
    rows = growth.measure(growth.Job(family, 0, (2, 4, 6), updates=1))["rows"]
    assert [row["horizon"] for row in rows] == [2, 4, 6]
    assert all(row["norm"] > 0 for row in rows)
    assert (rows[0]["eta"] is not None) == (family in growth.FED_BACK)


# -- chaos, contact, credit -------------------------------------------------------------------------------------------


def test_a_choice_is_made_once_and_then_left_to_chance() -> None:
    policy = Choice(3, 1)
    with torch.no_grad():
        policy.logit.fill_(0.5)
    states = torch.zeros(2, 4, 3)
    states[..., -1] = torch.linspace(-1, 0.5, 4)  # the clock
    noise = torch.randn(2, 4, 1)
    actions = policy.sample(states, noise)
    assert torch.equal(actions[:, 0], torch.full((2, 1), 0.5).tanh())
    assert torch.allclose(actions[:, 1:], 2 * torch.distributions.Normal(0, 1).cdf(noise[:, 1:]) - 1, atol=1e-6)


def test_ascent_through_the_simulator_finds_the_best_choice() -> None:
    row = ascend(choice.Job(CREDIT._replace(episodes=32), 10, "simulator", 0))
    assert len(row["costs"]) == choice.STARTS
    assert row["mean"] == pytest.approx(0, abs=1e-4)


def test_at_a_contact_the_simulator_is_stuck_where_the_ball_does_not_reach_the_wall() -> None:
    costs = ascend(choice.Job(CONTACT._replace(episodes=32), 10, "simulator", 0))["costs"]
    assert {cost < 1e-4 for cost in costs} == {True, False}
    assert all(0.25 < cost < 0.27 for cost in costs if cost > 1e-4)  # as at rest, (0 - goal)^2


@pytest.mark.parametrize("family", ["markov", "history", "actions"])
def test_every_family_is_fitted_and_ascended(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "STEPS", 2)
    row = ascend(choice.Job(CREDIT._replace(episodes=32, updates=2), 5, family, 0))
    assert len(row["costs"]) == choice.STARTS
    assert row["random"] == pytest.approx(1 / 3 + 0.25, rel=0.1)  # the mean of (a - 0.5)^2, once
    assert (row["family"], row["length"], row["seed"]) == (family, 5, 0)


@pytest.mark.parametrize("study", ["chaos", "contact", "credit"])
@pytest.mark.parametrize("is_best", [True, False])
def test_the_verdict_on_choices_is_that_of_the_longest_episodes(
    study: str, is_best: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ascend(job: choice.Job) -> dict[str, Any]:
        cost = (job.length if is_best else 1.0) if job.family != "actions" else 2.0
        same = {"family": job.family, "length": job.length, "seed": job.seed, "random": 5.0}
        return {**same, "mean": cost, "costs": [cost]}

    fake(monkeypatch, choice, ascend=ascend)
    verdict = STUDIES[study](True)
    assert verdict.holds is is_best
    assert {row["family"] for row in verdict.rows} == {"random", *choice.COMPARED}


def test_what_is_no_better_than_chance_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    def ascend(job: choice.Job) -> dict[str, Any]:
        cost = 1.0 if job.family == "actions" else 9.0
        return {"family": job.family, "length": job.length, "seed": job.seed, "random": 1.0, "mean": cost, "costs": []}

    fake(monkeypatch, choice, ascend=ascend)
    assert not STUDIES["chaos"](True).holds


def test_better_is_by_a_tenth_for_most_seeds() -> None:
    assert is_better([0.8, 0.8, 2.0], [1.0, 1.0, 1.0])
    assert not is_better([0.8, 2.0], [1.0, 1.0])
    assert not is_better([0.95, 0.95, 0.95], [1.0, 1.0, 1.0])
    assert not is_better([-1e-6], [-1e-6])


# -- horizon, detachment ----------------------------------------------------------------------------------------------


def test_a_recipe_is_run_with_a_family_at_a_length() -> None:
    task = horizon.Task("cancer_treatment", 8)
    row = horizon.learn(horizon.Job(task, "actions", 0, iterations=2, updates=1))
    assert row["env_steps"] == (12 + 3 + 2) * 8  # random episodes, noisy ones, trials
    bounds = horizon.bound(task)
    assert bounds["optimal"] < row["cost"] < 2 * bounds["random"]


@pytest.mark.parametrize("is_best", [True, False])
def test_the_verdict_on_horizons_counts_systems(is_best: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def learn(job: horizon.Job) -> dict[str, Any]:
        cost = 3.0 if job.family in horizon.RIVALS else (2.0 if is_best else 4.0)
        return {**job.task._asdict(), "family": job.family, "seed": job.seed, "cost": cost, "env_steps": 0}

    fake(monkeypatch, horizon, learn=learn, bound=lambda task: {"optimal": 1.0, "random": 5.0})
    verdict = STUDIES["horizon"](True)
    assert verdict.holds is is_best
    assert {row["regret"] for row in verdict.rows} == {0.5, 0.25 if is_best else 0.75}


def test_detaching_changes_the_gradient_of_a_policy_that_reads_states() -> None:
    row = detachment.optimise(detachment.Job("predator_prey", 1.0, 0, updates=2))
    assert -1 <= row["cosine_trained"] < row["cosine_fresh"] <= 1
    assert row["regret"] > 0


@pytest.mark.parametrize("is_worse", [True, False])
def test_the_verdict_on_detaching_counts_systems(is_worse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def optimise(job: detachment.Job) -> dict[str, Any]:
        regret = 0.05 if (job.beta == 0) == is_worse else 0.01
        return {**job._asdict(), "regret": regret, "cosine_fresh": None, "cosine_trained": 0.5}

    fake(monkeypatch, detachment, optimise=optimise)
    assert STUDIES["detachment"](True).holds is is_worse


# -- the command ------------------------------------------------------------------------------------------------------


def test_a_study_is_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "equivalence", "--quick", "--seeds", "2", "--json"]) == 0
    (study,) = json.loads(capsys.readouterr().out)["studies"]
    assert (study["name"], study["quick"], study["seeds"]) == ("equivalence", True, 2)
    assert {row["seed"] for row in study["rows"]} == {0, 1}
    assert json.loads(Path("runs/studies/equivalence.json").read_text()) == study
    assert Path("runs/studies/equivalence.png").is_file()
    (row,) = Path("runs/studies/verdicts.md").read_text().splitlines()[2:]
    assert row.startswith("| equivalence | holds | largest relative error ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name one study, of equivalence, growth"),
        (["growth", "--all"], "name one study, of equivalence, growth"),
        (["grwoth"], "invalid choice: 'grwoth'"),
        (["growth", "--seeds", "0"], "seeds must be at least 1, got 0"),
    ],
)
def test_mistakes_are_named(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", *arguments])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("study", ["growth", "chaos", "horizon", "detachment"])
def test_every_study_takes_a_number_of_seeds(study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()

    def run(function: Any, jobs: Any, title: str) -> Rows:
        if title == study:
            seen.update(job.seed for job in jobs)
            raise KeyboardInterrupt
        return [{} for _ in jobs]

    for module in (choice, detachment, growth, horizon):
        monkeypatch.setattr(module, "run_jobs", run)
    with pytest.raises(KeyboardInterrupt):
        STUDIES[study](True, seeds=4)
    assert seen == {0, 1, 2, 3}
