from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchrl.envs.utils import check_env_specs

from lit_awm.envs import SYSTEMS, OdeEnv, make_env
from lit_awm.envs.myriad import CancerTreatment, HivTreatment


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


@pytest.mark.parametrize("name", SYSTEMS)
def test_specs_hold(name: str) -> None:
    check_env_specs(make_env(name, num_envs=2, episode_length=5, initial_spread=0.1))
    check_env_specs(SYSTEMS[name](num_envs=2, dtype=torch.float64, integrator="euler"))


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("integrator", ["euler", "rk4"])
def test_gradient_of_one_step_is_correct(name: str, integrator: str) -> None:
    env = SYSTEMS[name](integrator=integrator)
    state = env.initial_state.clone().requires_grad_()
    control = env.control_bounds.mean(-1).requires_grad_()
    time = torch.tensor(0.3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x, u: env.step_fn(x, u, time), (state, control))


@pytest.mark.parametrize(("integrator", "order"), [("euler", 1), ("rk4", 4)])
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
    env = make_env("cancer_treatment", num_envs=2, episode_length=4)
    steps = env.rollout(10, break_when_any_done=False)
    assert steps["next", "done"][0, :, 0].nonzero().flatten().tolist() == [3, 7]
    assert torch.equal(steps["state"][:, 4], steps["state"][:, 0])


def test_batched_equals_unbatched() -> None:
    env = HivTreatment(dtype=torch.float64)
    states = env.initial_state * (1 + 0.1 * torch.rand(5, 2, 3, dtype=torch.float64))
    controls = torch.rand(5, 2, 1, dtype=torch.float64)
    times = torch.zeros(5, 2, dtype=torch.float64)
    batched_state, batched_reward = env.step_fn(states, controls, times)
    for i in range(5):
        state, reward = env.step_fn(states[i, 1], controls[i, 1], times[i, 1])
        torch.testing.assert_close(state, batched_state[i, 1], rtol=1e-14, atol=0)
        torch.testing.assert_close(reward, batched_reward[i, 1], rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", SYSTEMS)
def test_float32_is_close_to_float64(name: str) -> None:
    controls = torch.rand(20, 1, len(SYSTEMS[name].control_names)) * 2 - 1
    states = []
    for dtype in (torch.float32, torch.float64):
        env = make_env(name, dtype=dtype)
        step = env.reset()
        for control in controls.to(dtype):
            step = env.step_mdp(env.step(step.set("action", control)))
            states.append(step["state"])
    torch.testing.assert_close(torch.stack(states[:20]).double(), torch.stack(states[20:]), rtol=1e-4, atol=1e-6)


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
        ({"integrator": "rk5"}, "integrator must be one of euler, rk4, got 'rk5'"),
        ({"initial_spread": 1.5}, "initial_spread must be at least 0 and below 1, got 1.5"),
        ({"x_0": 0.0}, "x_0 must be positive"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CancerTreatment(**options)
