"""What recorded steps have earned."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torchrl.objectives.value.functional import reward2go


def add_returns(episodes: TensorDictBase) -> None:
    """Add to a round of experience ``(N, T)`` what each step has earned from then on, and its whole episode.

    ``return_to_go`` is the undiscounted sum of rewards from a step to the end of its episode, ``episode_return`` that
    of the episode from its beginning, both ``(N, T, 1)``. Where a round ends before an episode does, as after one that
    ended early, nobody knows what the episode would have earned: its ``episode_return`` is minus infinity.
    """
    done = episodes["next", "done"]
    is_last = torch.zeros_like(done)
    is_last[:, -1] = True
    to_go = reward2go(episodes["next", "reward"], done | is_last, gamma=1.0)
    steps = torch.arange(done.shape[1], device=done.device).view(1, -1, 1).expand_as(done)
    begins = torch.where(episodes["is_init"], steps, 0).cummax(dim=1).values
    is_unfinished = (begins == begins[:, -1:]) & ~done[:, -1:]
    episodes["return_to_go"] = to_go
    episodes["episode_return"] = to_go.gather(1, begins).masked_fill(is_unfinished, -torch.inf)
