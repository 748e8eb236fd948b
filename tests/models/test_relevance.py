from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lit_awm.envs import SYSTEMS, make_env
from lit_awm.models.relevance import find_noise

SEQUENCES, STEPS = 12, 100
Sequences = tuple[Tensor, Tensor, Tensor]


def linear_system(demand: Tensor, multiplies: float = 0.0, adds: float = 0.0, earns: float = 0.0) -> Sequences:
    """``s' = 0.95 s + 0.3 a + adds d + multiplies d a``, reward ``-s^2 + earns d a``; ``d`` is the last component."""
    actions = torch.rand(SEQUENCES, STEPS, 1) * 2 - 1
    states = [torch.randn(SEQUENCES)]
    for t in range(STEPS):
        effect = 0.3 + multiplies * demand[:, t]
        states.append(0.95 * states[-1] + effect * actions[:, t, 0] + adds * demand[:, t])
    state = torch.stack(states, 1)
    rewards = -state[:, :-1].square() + earns * demand[:, :-1] * actions[..., 0]
    return torch.stack([state, demand], dim=-1), actions, rewards


def noise() -> Tensor:
    return 1000 * torch.randn(SEQUENCES, STEPS + 1) + 5


def test_what_nothing_predicts_and_what_predicts_nothing_is_noise() -> None:
    assert find_noise(*linear_system(noise())).tolist() == [False, True]
    states, actions, rewards = linear_system(noise())
    assert find_noise(states[:, :-1], actions, rewards).tolist() == [False, True]  # without the last state


@pytest.mark.parametrize("use", ["adds", "multiplies", "earns"])
def test_what_cannot_be_predicted_is_no_noise_if_it_tells_of_other_things(use: str) -> None:
    """A demand, say, that is drawn anew at every step, and has to be met."""
    assert not find_noise(*linear_system(noise() / 1000, **{use: 0.1})).any()


def test_what_comes_of_it_may_decide_what_is_noise() -> None:
    demand = noise() / 1000
    states, actions, _ = linear_system(demand)
    assert not find_noise(states, actions, demand[:, 1:].square()).any()  # a reward of the next value
    ended = (demand[:, :-1] > 1.5).float()
    assert find_noise(states, actions, torch.zeros_like(ended)).tolist() == [False, True]
    assert not find_noise(states, actions, torch.stack([torch.zeros_like(ended), ended], dim=-1)).any()


def test_what_is_a_product_of_state_and_action_is_no_noise() -> None:
    states, actions, rewards = linear_system(torch.zeros(SEQUENCES, STEPS + 1))
    states[:, 1:, 1] = states[:, :-1, 0] * actions[..., 0]
    assert not find_noise(states, actions, torch.zeros_like(rewards)).any()


def test_what_is_of_use_in_one_kind_of_episode_alone_is_no_noise() -> None:
    demand, kind = noise() / 1000, (torch.arange(SEQUENCES) % 2).float().unsqueeze(1)
    states, actions, rewards = linear_system(demand * kind, adds=0.3)
    seen = torch.stack([kind.expand_as(demand), states[..., 0], demand], dim=-1)
    assert not find_noise(seen, actions, rewards).any()


def test_what_never_changes_or_only_between_episodes_is_no_noise() -> None:
    assert not find_noise(*linear_system(torch.ones(SEQUENCES, STEPS + 1))).any()
    goal = torch.randn(SEQUENCES, 1).expand(SEQUENCES, STEPS + 1)
    assert not find_noise(*linear_system(goal)).any()


def test_of_few_steps_nothing_is_concluded() -> None:
    states, actions, rewards = linear_system(noise())
    assert not find_noise(states[:1, :31], actions[:1, :30], rewards[:1, :30]).any()
    twelvefold = (each[:1, :30].repeat(12, 1, 1) for each in (states, actions, rewards.unsqueeze(-1)))
    repeated, acted, earned = twelvefold
    assert not find_noise(repeated, acted, earned.squeeze(-1)).any()  # the same ones, over and over


def test_an_episode_that_diverges_hides_no_noise_and_a_single_state_is_no_step() -> None:
    states, actions, rewards = linear_system(noise())
    states[0, 90:] = torch.nan
    states[1, 90:, 0] *= 1e12
    assert find_noise(states, actions, rewards).tolist() == [False, True]
    assert not find_noise(states[:, :1], actions[:, :1], rewards[:, :1]).any()
    states, actions, rewards = linear_system(noise() / 1000, adds=0.3, earns=0.3)
    for each in (states[..., 0], rewards):
        each[1, 90:] = 1e12
    assert not find_noise(states, actions, rewards).any()


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name != "invasive_plant"])  # of ten steps
def test_distractors_are_found_beside_a_noisy_state_in_every_system(name: str) -> None:
    env = make_env(name, num_envs=SEQUENCES, distractors=3)
    env.set_seed(0)
    episodes = env.rollout(env.episode_length, break_when_any_done=False)
    seen = torch.cat([episodes["observation"], episodes["next", "observation"][:, -1:]], dim=1)
    size, outcomes = seen.shape[-1] - 4, episodes["next", "reward"].squeeze(-1)  # before them, and the clock
    without = torch.cat([seen[..., :size], seen[..., -1:]], dim=-1)
    assert not find_noise(without, episodes["action"], outcomes).any()
    seen[..., :size] += 0.01 * seen[..., :size].std((0, 1)) * torch.randn_like(seen[..., :size])
    is_noise = find_noise(seen, episodes["action"], outcomes)
    assert is_noise.nonzero().flatten().tolist() == [size, size + 1, size + 2]
