from __future__ import annotations

import pytest
import torch
from torchrl.envs import GymEnv, StepCounter, TransformedEnv
from torchrl.envs.utils import check_env_specs

from lit_awm.envs import make_env
from lit_awm.envs.transforms import Clock, DistractorDimensions, ObservationNoise


def test_the_observation_is_state_distractors_and_clock_in_this_order() -> None:
    episode = make_env("cancer_treatment", episode_length=8, distractors=3).rollout(8)
    observation = episode["observation"][0]
    assert observation.shape == (8, 5)
    assert torch.equal(observation[:, :1], episode["state"][0])
    assert torch.equal(observation[:, 1:4], episode["distractors"][0])
    torch.testing.assert_close(observation[:, 4], torch.linspace(-1, 1, 9)[:-1])


def test_distractors_are_unit_normal_and_independent_of_each_other_and_of_time() -> None:
    noise = make_env("cancer_treatment", num_envs=512, distractors=4).rollout(20)["distractors"]
    flat = noise.reshape(512, -1)
    assert flat.mean().abs() < 5 / flat.numel() ** 0.5
    assert flat.std().item() == pytest.approx(1, abs=0.02)
    assert torch.corrcoef(flat.T).fill_diagonal_(0).abs().max() < 0.3


def test_noise_is_on_the_observation_and_not_in_the_state() -> None:
    noisy = make_env("cancer_treatment", num_envs=256, observation_noise=0.25)
    clean = make_env("cancer_treatment", num_envs=256)
    action = torch.zeros(256, 1)
    noisy_episode, clean_episode = (env.rollout(10, lambda td: td.set("action", action)) for env in (noisy, clean))
    assert torch.equal(noisy_episode["state"], clean_episode["state"])
    assert torch.equal(noisy_episode["next", "reward"], clean_episode["next", "reward"])
    noise = noisy_episode["observation"][..., :1] - clean_episode["observation"][..., :1]
    assert noise.std().item() == pytest.approx(0.25, rel=0.05)
    assert noise.mean().abs() < 5 * 0.25 / noise.numel() ** 0.5


def test_each_dimension_can_have_noise_of_its_own() -> None:
    env = make_env("hiv_treatment", num_envs=2000, observation_noise=[5.0, 0.0, 0.1])
    start = env.reset()
    noise = start["observation"][:, :3] - start["state"]
    assert noise[:, 1].eq(0).all()
    torch.testing.assert_close(noise.std(0), torch.tensor([5.0, 0.0, 0.1]), rtol=0.1, atol=0)


def test_the_transforms_fit_any_environment() -> None:
    pytest.importorskip("gymnasium")
    env = TransformedEnv(GymEnv("Pendulum-v1"), StepCounter(max_steps=5))
    for transform in (Clock(5), DistractorDimensions(2), ObservationNoise(0.1, "observation", "noisy")):
        env.append_transform(transform)
    check_env_specs(env)
    episode = env.rollout(10)
    torch.testing.assert_close(episode["next", "clock"][:, 0], torch.tensor([-0.6, -0.2, 0.2, 0.6, 1.0]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Clock(0), "length must be positive, got 0"),
        (lambda: DistractorDimensions(0), "count must be at least 1, got 0"),
        (lambda: ObservationNoise([0.1, -0.1]), "observation_noise must be at least 0, got -0.1"),
    ],
)
def test_bad_arguments_are_refused(make: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()  # type: ignore[operator]
