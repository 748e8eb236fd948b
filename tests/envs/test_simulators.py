from __future__ import annotations

import importlib.util
import io

import pytest
import torch
from torchrl.envs.utils import check_env_specs

from lit_awm.checkpoints.files import pack
from lit_awm.envs import load_optimum, make_env, simulators
from lit_awm.envs.simulators import SimulatorEnv

INSTALLED = {suite: importlib.util.find_spec(package) is not None for suite, package in simulators.PACKAGES.items()}
TASKS = [
    pytest.param(task, size, marks=pytest.mark.skipif(not INSTALLED[task[:3]], reason=f"needs the extra {task[:3]}"))
    for task, size in {"gym/Pendulum-v1": 3, "gym/InvertedPendulum-v5": 4, "dmc/cartpole-swingup": 5}.items()
]


@pytest.mark.parametrize(("name", "size"), TASKS)
def test_a_task_has_the_keys_and_the_ranges_of_our_environments(name: str, size: int) -> None:
    env = make_env(name, num_envs=2, episode_length=6, distractors=2)
    check_env_specs(env)
    episode = env.rollout(12, break_when_any_done=False)
    assert episode["observation"].shape == (2, 12, size + 2 + 1)
    assert episode["observation"].dtype == episode["next", "reward"].dtype == torch.float32
    assert episode["action"].abs().max() <= 1
    assert (env.name, env.episode_length) == (name, 6)
    assert load_optimum(name) is None
    is_over = episode["next", "done"][0, :, 0]
    clock = episode["observation"][0, :, -1]
    assert clock[0] == -1
    assert clock[1:][is_over[:-1]].eq(-1).all()
    assert is_over.any()


@pytest.mark.parametrize(("name", "size"), TASKS)
def test_seeded_episodes_are_reproducible(name: str, size: int) -> None:
    observations = []
    for _ in range(2):
        env = make_env(name, num_envs=2, episode_length=5, distractors=2)
        env.set_seed(7)
        observations.append(env.rollout(5, lambda td: td.set("action", torch.zeros(2, 1)))["observation"])
    assert torch.equal(*observations)


@pytest.mark.skipif(not INSTALLED["gym"], reason="needs the extra gym")
def test_episodes_may_be_longer_than_the_tasks_own_limit() -> None:
    assert make_env("gym/Pendulum-v1", episode_length=250).rollout(999).shape == (1, 250)


@pytest.mark.skipif(not INSTALLED["gym"], reason="needs the extra gym")
def test_an_unknown_task_and_discrete_actions_are_refused() -> None:
    with pytest.raises(ValueError, match="env must name a task of gymnasium, got 'gym/Nope-v0'"):
        make_env("gym/Nope-v0")
    with pytest.raises(ValueError, match="continuous, bounded actions, got 'gym/CartPole-v1' with OneHot"):
        make_env("gym/CartPole-v1")
    with pytest.raises(TypeError, match="frame_skp"):
        make_env("gym/Pendulum-v1", frame_skp=2)


@pytest.mark.parametrize(("suite", "which"), [("gym", "$"), ("dmc", r" \(Python 3.12 or older\)")])
def test_a_missing_package_is_named_with_the_extra_that_installs_it(
    suite: str, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(simulators.PACKAGES, suite, "no_such_package")
    words = rf"needs no_such_package. Install it with: pip install 'lit-awm\[{suite}\]'{which}"
    with pytest.raises(ImportError, match=words):
        make_env(f"{suite}/Pendulum-v1")


@pytest.mark.parametrize(("name", "size"), TASKS)
def test_the_next_episode_depends_on_the_random_states_alone(name: str, size: int) -> None:
    def next_episode(env: SimulatorEnv) -> torch.Tensor:
        return env.rollout(5, lambda td: td.set("action", torch.full(env.action_spec.shape, 0.3)))["observation"]

    first, second = (make_env(name, num_envs=2, episode_length=5) for _ in range(2))
    first.set_seed(1)
    second.set_seed(2)
    next_episode(first)
    states = torch.load(io.BytesIO(pack(first.random_states())), weights_only=True)
    expected = next_episode(first)
    assert not torch.equal(next_episode(second), expected)
    second.set_random_states(states)
    assert torch.equal(next_episode(second), expected)


@pytest.mark.parametrize("name", [pytest.param("gym/Pendulum-v1", marks=TASKS[0].marks)])
def test_an_episode_has_as_many_steps_whatever_frames_are_skipped(name: str) -> None:
    episode = make_env(name, episode_length=6, frame_skip=4).rollout(10)
    assert episode.shape[-1] == 6
    assert episode["next", "observation"][0, -1, -1] == 1  # the clock
