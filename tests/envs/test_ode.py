from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lit_awm.envs import OdeEnv, make_env
from lit_awm.envs.myriad import CancerTreatment


class Decay(OdeEnv):
    """``x' = -x + u`` with cost ``t`` and terminal cost ``x``, solvable by hand."""

    name, state_names, control_names = "decay", ("x",), ("u",)

    def __init__(self, **options: object) -> None:
        super().__init__(initial_state=[1.0], control_bounds=[(-1, 1)], state_bounds=[(0, 1)], duration=2.0, **options)

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        return control - state

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        return time.expand(state.shape[:-1])

    def terminal_cost(self, state: Tensor) -> Tensor:
        return state[..., 0]


@pytest.mark.parametrize(("integrator", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_error_falls_with_the_order_of_the_integrator(integrator: str, order: int) -> None:
    exact = torch.exp(torch.tensor(-2.0, dtype=torch.float64))
    errors = []
    for episode_length in (20, 40):
        env = Decay(episode_length=episode_length, integrator=integrator, dtype=torch.float64)
        final = env.rollout(1000, lambda td: td.set("action", torch.zeros(1, 1).double()))["next", "state"][0, -1]
        errors.append((final - exact).abs())
    assert torch.log2(errors[0] / errors[1]).item() == pytest.approx(order, abs=0.2)


def test_return_is_minus_the_running_and_the_terminal_cost() -> None:
    env = Decay(episode_length=50, dtype=torch.float64)
    episode = env.rollout(1000, lambda td: td.set("action", torch.zeros(1, 1).double()))
    assert episode.shape == (1, 50)
    assert episode["next", "truncated"][0, -1].item()
    expected = -(2.0 - 0.0) - torch.exp(torch.tensor(-2.0, dtype=torch.float64))  # integral of t over [0, 2] is 2
    assert episode["next", "reward"].sum().item() == pytest.approx(expected.item(), abs=1e-6)


def test_an_episode_starts_again_by_itself_and_ends_after_its_length() -> None:
    env = make_env("bear_populations", num_envs=2, episode_length=4)
    steps = env.rollout(10, break_when_any_done=False)
    assert steps["next", "done"][0, :, 0].nonzero().flatten().tolist() == [3, 7]
    assert torch.equal(steps["state"][:, 4], steps["state"][:, 0])


def test_reset_is_reproducible_and_spreads_as_asked() -> None:
    env = make_env("hiv_treatment", num_envs=50, initial_spread=0.2)
    env.set_seed(3)
    first = env.reset()["state"]
    env.set_seed(3)
    assert torch.equal(env.reset()["state"], first)
    relative = first / env.initial_state.float()
    assert relative.min() >= 0.8
    assert relative.max() <= 1.2
    assert relative.std() > 0.05
    assert torch.equal(make_env("hiv_treatment").reset()["state"][0], env.initial_state.float())


def test_only_the_chosen_environments_are_reset() -> None:
    env = make_env("cancer_treatment", num_envs=3)
    last = env.rollout(3)[:, -1]["next"]
    last["_reset"] = torch.tensor([[True], [False], [True]])
    after = env.reset(last.clone())
    assert torch.equal(after["time"], torch.tensor([[0.0], last["time"][1].tolist(), [0.0]]))
    assert torch.equal(after["state"][1], last["state"][1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"episode_length": 0}, "episode_length must be at least 1, got 0"),
        ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
        ({"duration": -1.0}, "duration must be positive, got -1"),
        ({"integrator": "rk5"}, "integrator must be one of euler, heun, rk4, got 'rk5'"),
        ({"substeps": 0}, "substeps must be at least 1, got 0"),
        ({"initial_spread": 1.5}, "initial_spread must be at least 0 and below 1, got 1.5"),
        ({"x_0": 0.0}, "x_0 must lie inside the domain"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CancerTreatment(**options)
