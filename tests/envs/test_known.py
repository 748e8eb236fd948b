from __future__ import annotations

import pytest
import torch
from tensordict.nn import TensorDictModule

from lit_awm.envs import SYSTEMS, KnownReward, KnownStep, OdeEnv, make_env

ODES = [name for name, system in SYSTEMS.items() if issubclass(system, OdeEnv) and not system.is_discrete]
STATE_COSTS = ["bear_populations", "cancer_treatment", "glucose", "harvest", "hiv_treatment", "seir", "timber_harvest"]


@pytest.mark.parametrize("name", ODES)
def test_known_reward_is_exact_for_euler(name: str) -> None:
    env = make_env(name, num_envs=3, integrator="euler", substeps=1, distractors=2, dtype=torch.float64)
    episode = env.rollout(env.episode_length)
    assert not episode["next", "terminated"].any()
    known = KnownReward(env)(episode["observation"], episode["action"], episode["next", "observation"])
    torch.testing.assert_close(known, episode["next", "reward"].squeeze(-1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", STATE_COSTS)
def test_known_return_is_of_second_order_for_rk4(name: str) -> None:
    errors = []
    for episode_length in (100, 200):
        env = make_env(name, episode_length=episode_length, dtype=torch.float64)
        falling = TensorDictModule(
            lambda observation, size=env.action_spec.shape[-1]: (0.5 - observation[:, -1:] / 4).expand(-1, size),
            in_keys=["observation"],
            out_keys=["action"],
        )
        held = env.rollout(episode_length, falling)
        known = KnownReward(env)(held["observation"], held["action"], held["next", "observation"]).sum()
        errors.append((known - held["next", "reward"].sum()).abs().item())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)


def test_a_reward_that_is_no_function_of_what_is_seen_is_not_called_known() -> None:
    env = make_env("cancer_treatment", observe_time=False)
    assert not KnownReward.is_known(env)
    with pytest.raises(ValueError, match="env must be a system of the testbed with observe_time true, got one"):
        KnownReward(env)


def test_the_known_reward_is_that_of_the_state_without_noise_if_it_is_given_that() -> None:
    env = make_env("mountain_car", num_envs=3, observation_noise=[0.02, 0.001], distractors=2, dtype=torch.float64)
    episode = env.rollout(100)
    states, following = (
        torch.cat([each["state"], each["distractors"], each["clock"]], dim=-1) for each in (episode, episode["next"])
    )
    known = KnownReward(env)
    expected = episode["next", "reward"].squeeze(-1)
    torch.testing.assert_close(known(states, episode["action"], following), expected, rtol=1e-9, atol=1e-9)
    seen = known(episode["observation"], episode["action"], episode["next", "observation"])
    assert (seen - expected).abs().max() > 1  # the end is missed by more or less


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_known_reward_follows_the_model_to_another_device(name: str) -> None:
    env = make_env(name, **({"bounds": "charge"} if name == "van_der_pol" else {}))
    size = env.observation_spec["observation"].shape[-1]
    known = KnownReward(env).to("meta")
    observation, action = (torch.zeros(4, n, device="meta") for n in (size, env.action_spec.shape[-1]))
    assert known(observation, action, observation).device.type == "meta"


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_known_step_is_that_of_the_environment(name: str) -> None:
    env = make_env(name, num_envs=2, dtype=torch.float64, **({"noise": 0.0} if name == "credit_assignment" else {}))
    episode = env.rollout(env.episode_length)
    stays = ~episode["next", "terminated"].squeeze(-1)
    observed, rewards = KnownStep(env)(episode["observation"], episode["action"])
    torch.testing.assert_close(observed[stays], episode["next", "observation"][stays], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(rewards, episode["next", "reward"].squeeze(-1), rtol=1e-9, atol=1e-9)


def test_reward_and_step_of_a_shorter_task_are_read_from_the_clock_of_a_longer_one() -> None:
    options = {"dt": 0.1, "dtype": torch.float64}
    long, short = (make_env("predator_prey", episode_length=length, **options) for length in (20, 5))
    episode = short.rollout(5)
    observed = episode["observation"].clone()
    observed[..., -1] = -1 + 2 / 20 * torch.arange(5)
    following, rewards = KnownStep(long, short.base_env)(observed, episode["action"])
    torch.testing.assert_close(rewards, episode["next", "reward"].squeeze(-1), rtol=1e-12, atol=1e-12)
    known = [
        KnownReward(*which)(seen, episode["action"], after)
        for which, seen, after in (
            ((long, short.base_env), observed, following),
            ((short,), episode["observation"], episode["next", "observation"]),
        )
    ]
    torch.testing.assert_close(*known, rtol=1e-12, atol=1e-12)
    assert known[0][0, -1] < -0.5  # the end of the short task is paid for


@pytest.mark.parametrize("options", [{"observe_time": False}, {"observation_noise": 0.1}, {"distractors": 1}])
def test_a_step_that_is_no_function_of_what_is_seen_is_not_called_known(options: dict[str, object]) -> None:
    env = make_env("cancer_treatment", **options)
    assert not KnownStep.is_known(env)
    with pytest.raises(ValueError, match="observation_noise 0 and no distractors"):
        KnownStep(env)
