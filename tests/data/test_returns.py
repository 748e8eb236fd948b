from __future__ import annotations

import torch
from tensordict import TensorDict

from lit_awm.data.returns import add_returns


def test_an_episode_that_the_round_cuts_short_has_no_known_return() -> None:
    done = torch.tensor([[0, 0, 0, 0, 1], [0, 1, 0, 0, 0]], dtype=torch.bool).unsqueeze(-1)
    is_init = torch.tensor([[1, 0, 0, 0, 0], [1, 0, 1, 0, 0]], dtype=torch.bool).unsqueeze(-1)
    reward = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 3.0, 4.0, 5.0]]).unsqueeze(-1)
    episodes = TensorDict({"is_init": is_init, "next": TensorDict({"done": done, "reward": reward}, [2, 5])}, [2, 5])
    add_returns(episodes)
    expected = torch.tensor([[15.0, 14.0, 12.0, 9.0, 5.0], [3.0, 2.0, 12.0, 9.0, 5.0]])
    assert torch.equal(episodes["return_to_go"].squeeze(-1), expected)
    unknown = -torch.inf
    whole = torch.tensor([[15.0] * 5, [3.0, 3.0, unknown, unknown, unknown]])
    assert torch.equal(episodes["episode_return"].squeeze(-1), whole)
