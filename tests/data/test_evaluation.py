from __future__ import annotations

import pytest
import torch

from lit_awm.data import EvaluationEpisodes, evaluate
from lit_awm.data.evaluation import make_eval_env
from lit_awm.envs import load_optimum, make_env
from lit_awm.models import DeterministicPolicy


class Constant(DeterministicPolicy):
    """Always the same action."""

    def __init__(self, action: float) -> None:
        super().__init__(2, 1)
        self.action = action

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        return torch.full_like(state[..., :1], self.action)


def test_the_best_constant_control_scores_a_gap_of_one() -> None:
    optimum = load_optimum("cancer_treatment")
    assert optimum is not None
    policy = Constant(optimum.constant_control[0] - 1)  # controls lie in [0, 2]
    scores = evaluate(make_env("cancer_treatment", num_envs=2), policy, optimum)
    assert scores["gap"].tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    assert scores["cost"].tolist() == pytest.approx([optimum.constant_cost] * 2, rel=1e-6)
    assert torch.equal(scores["return"], -scores["cost"])
    assert scores["episode"].shape == (2, 100)


def test_scores_that_do_not_exist_are_left_out() -> None:
    scores = evaluate(make_env("bioreactor"), Constant(-1.0), load_optimum("bioreactor"))
    assert "gap" not in scores.keys()
    assert scores["regret"].item() == pytest.approx(0, abs=1e-5)
    scores = evaluate(make_env("cancer_treatment", episode_length=7), Constant(0.0), None)
    assert {"return", "cost"} == set(scores.keys()) - {"episode"}


def test_the_target_error_is_that_of_the_final_state() -> None:
    env = make_env("mountain_car", num_envs=2, initial_spread=0.1)
    scores = evaluate(env, Constant(0.3), None)
    final = scores["episode"]["next", "state"][:, -1]
    expected = ((final - torch.tensor([0.45, 0.0])).abs() / torch.tensor([1.8, 0.14])).amax(dim=1)
    assert scores["target_error"].tolist() == pytest.approx(expected.tolist())
    assert "target_error" not in evaluate(make_env("harvest"), Constant(0.3), None).keys()


def test_the_target_error_of_an_episode_that_ends_early_is_that_of_its_own_end() -> None:
    env = make_env("cartpole", num_envs=2, u_max=1e4)
    scores = evaluate(env, Constant(1.0), None)
    done = scores["episode"]["next", "done"].squeeze(-1)
    assert done[:, :-1].any(dim=1).all()  # another episode follows
    ends = scores["episode"]["next", "state"][torch.arange(2), done.int().argmax(dim=1)]
    expected = env.base_env.target_error(ends)
    assert expected is not None
    assert scores["target_error"].tolist() == pytest.approx(expected.tolist())


def test_an_evaluation_is_the_same_every_time_and_draws_no_random_number() -> None:
    episodes = EvaluationEpisodes(make_env("hiv_treatment", 3, initial_spread=0.3), Constant(0.0), None, seed=5)
    before = torch.get_rng_state()
    (first,), (second,) = episodes, episodes
    assert torch.equal(first["return"], second["return"])
    assert first["return"].std() > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_an_evaluation_of_episodes_that_end_early_counts_the_first_of_each_instance() -> None:
    env = make_env("bacteria", num_envs=3, bounds="ignore")
    scores = evaluate(env, Constant(1.0), None)
    assert scores["cost"].max() < 1e4 + 100
    assert scores["cost"].min() >= 1e4
    assert scores["episode"].shape == (3, 100)


def test_nothing_follows_the_end_of_an_episode_that_is_evaluated_alone() -> None:
    env = make_env("bacteria", num_envs=1, bounds="ignore")
    (episode,) = evaluate(env, Constant(1.0), None)["episode"]
    assert len(episode) < 100
    assert episode["next", "done"].flatten().nonzero().tolist() == [[len(episode) - 1]]


def test_a_small_share_of_a_large_cost_is_told_in_double_precision() -> None:
    optimum = load_optimum("glucose")
    assert optimum is not None
    low, high = make_env("glucose").control_bounds.tolist()[0]
    policy = Constant(2 * (optimum.constant_control[0] - low) / (high - low) - 1)
    scores = evaluate(make_eval_env("glucose", 1), policy, optimum)
    assert scores["gap"].item() == pytest.approx(1, abs=1e-5)
    assert make_eval_env("glucose", 1, dtype=torch.float32).reset()["observation"].dtype == torch.float32
