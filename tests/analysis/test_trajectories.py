from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_awm.analysis.trajectories import draw_trajectory
from lit_awm.data import evaluate
from lit_awm.envs import SYSTEMS, load_optimum, make_env
from lit_awm.models import DeterministicPolicy


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_figure_shows_every_state_and_control_beside_the_optimum(name: str) -> None:
    env, optimum = make_env(name), load_optimum(name)
    assert optimum is not None
    policy = DeterministicPolicy(len(env.state_names) + 1, len(env.control_names))
    evaluation = evaluate(env, policy, optimum)
    axes = draw_trajectory(env, evaluation, optimum).axes
    assert [ax.get_title() for ax in axes] == [*env.state_names, *env.control_names]
    for index, ax in enumerate(axes):
        learned, best = (line.get_ydata() for line in ax.lines)
        if index < len(env.state_names):
            state = evaluation["episode", "next", "state"][0, :, index]
            np.testing.assert_allclose(learned[1:], state, rtol=1e-6)
        else:
            control = index - len(env.state_names)
            np.testing.assert_allclose(best, np.array(optimum.controls)[:, control], rtol=1e-9)
            low, high = env.control_bounds[control]
            action = evaluation["episode", "action"][0, :, control]
            np.testing.assert_allclose(
                learned, low + (action + 1) / 2 * (high - low), rtol=1e-6, atol=1e-6 * (high - low)
            )


def test_the_optimal_trajectory_drawn_has_the_optimal_end() -> None:
    env, optimum = make_env("cancer_treatment"), load_optimum("cancer_treatment")
    assert optimum is not None
    figure = draw_trajectory(env, evaluate(env, DeterministicPolicy(2, 1), optimum), optimum)
    state = env.initial_state
    for step, control in enumerate(torch.tensor(optimum.controls, dtype=torch.float64)):
        state, _ = env.step_fn(state, control, torch.tensor(step * env.dt))
    assert figure.axes[0].lines[1].get_ydata()[-1] == pytest.approx(state.item(), rel=1e-6)


def test_without_an_optimum_the_learned_trajectory_stands_alone() -> None:
    env = make_env("cancer_treatment", episode_length=50)
    figure = draw_trajectory(env, evaluate(env, DeterministicPolicy(2, 1), None), None)
    assert [len(ax.lines) for ax in figure.axes] == [1, 1]
