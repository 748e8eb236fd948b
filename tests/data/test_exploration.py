from __future__ import annotations

import torch

from lit_awm.data.exploration import Exploration
from lit_awm.models import DeterministicPolicy


def actions_of(exploration: Exploration, steps: int, num_envs: int = 64) -> torch.Tensor:
    starts = [torch.full((num_envs, 1), step == 0) for step in range(steps)]
    earned = torch.zeros(num_envs, 1)
    return torch.stack([exploration(torch.zeros(num_envs, 3), start, earned) for start in starts], dim=1)


def test_random_actions_cover_the_range_and_are_held_as_long_as_asked() -> None:
    actions = actions_of(Exploration(None, action_dim=1, noise=0.3, mean_hold=5.0), 400)
    assert actions.min() < -0.99
    assert actions.max() > 0.99
    changes = actions.diff(dim=1).ne(0).float().mean()
    assert abs(changes.item() - 0.2) < 0.01


def test_noise_is_added_to_the_policy_within_the_range() -> None:
    policy = DeterministicPolicy(3, 1)
    exploration = Exploration(policy, action_dim=1, noise=0.5, mean_hold=1.0)
    exploration.at_random.fill_(False)
    actions = actions_of(exploration, 400)
    assert abs(actions.std().item() - 0.48) < 0.02  # 0.5, less what is clipped
    assert actions.abs().max() <= 1
    exploration.noise = 0.0
    torch.testing.assert_close(actions_of(exploration, 3)[:, 2], policy(torch.zeros(64, 3)))


def test_a_new_episode_draws_anew() -> None:
    exploration = Exploration(None, action_dim=1, noise=0.0, mean_hold=1e9)
    starts = (
        torch.ones(8, 1, dtype=torch.bool),
        torch.zeros(8, 1, dtype=torch.bool),
        torch.tensor([[True], [False]] * 4),
    )
    first, held, renewed = (exploration(torch.zeros(8, 3), start, torch.zeros(8, 1)) for start in starts)
    assert torch.equal(first, held)
    assert renewed[::2].ne(first[::2]).all()
    assert torch.equal(renewed[1::2], first[1::2])
