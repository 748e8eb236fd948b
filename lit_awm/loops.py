"""The schedule of an alternating run: collect, fit the world model, optimise the policy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from tensordict import TensorDict


class ExperienceSource(Protocol):
    """What the loop asks of the data: new experience, and batches of it."""

    def collect(self) -> None:
        """Add experience from the real environment."""

    def sample_trajectories(self) -> TensorDict:
        """Return a batch for the world model."""

    def sample_initial_states(self) -> TensorDict:
        """Return a batch for the policy."""


class AlternatingLoop:
    """A dataloader of which one pass is one outer iteration.

    A pass collects experience, then yields ``world_model_updates`` batches of trajectories tagged ``"world_model"``,
    then ``policy_updates`` times one and the same batch of initial states tagged ``"policy"``: states that stay the
    same let warm imagination reuse its last pass. The loop has a length, so that Lightning does not draw ahead, and a
    state, so that a run resumes in the middle of a pass.

    Args:
        source: Collects and samples.
        world_model_updates: Batches for the world model in a pass.
        policy_updates: Batches for the policy in a pass.
        limit: After how many batches of a pass the trainer stops, if it does; both phases are then shortened alike, and
            from 2 on at least one batch of each is kept.
    """

    def __init__(
        self, source: ExperienceSource, world_model_updates: int, policy_updates: int, limit: int | None = None
    ) -> None:
        self.source = source
        self.full_length = world_model_updates + policy_updates
        self.world_model_updates, self.policy_updates = _shorten(world_model_updates, policy_updates, limit)
        self.position = 0
        self._resume_at = 0
        self._initial_states: TensorDict | None = None

    def __len__(self) -> int:
        return self.full_length  # to which the trainer applies its own limit

    def __iter__(self) -> Iterator[TensorDict]:
        # Lightning stops asking after the last batch: no line after the last `yield` is ever run.
        start, self._resume_at = self._resume_at, 0
        for position in range(start, self.world_model_updates + self.policy_updates):
            if position == 0:
                self.source.collect()
            self.position = position + 1
            yield self._batch(position)

    def _batch(self, position: int) -> TensorDict:
        if position < self.world_model_updates:
            return self.source.sample_trajectories().set_non_tensor("phase", "world_model")
        if self._initial_states is None or position == self.world_model_updates:
            self._initial_states = self.source.sample_initial_states()
        return self._initial_states.copy().set_non_tensor("phase", "policy")

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the pass and what it holds on to."""
        states = self._initial_states
        return {
            "position": self.position,
            "updates": (self.world_model_updates, self.policy_updates),
            "initial_states": None if states is None else states["observation"],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; a whole pass counts as the beginning of the next.

        Raises:
            ValueError: If it was taken within a pass of other numbers of updates.
        """
        updates, position = tuple(state_dict["updates"]), state_dict["position"] % sum(state_dict["updates"])
        if position and updates != (self.world_model_updates, self.policy_updates):
            raise ValueError(
                f"world_model_updates and policy_updates must be {updates[0]} and {updates[1]} to resume within a "
                f"pass, got {self.world_model_updates} and {self.policy_updates}. Resume from the end of a pass to "
                "change them."
            )
        self.position = self._resume_at = position
        states = state_dict["initial_states"]
        self._initial_states = None if states is None else TensorDict({"observation": states}, len(states))


def _shorten(world_model_updates: int, policy_updates: int, limit: int | None) -> tuple[int, int]:
    total = world_model_updates + policy_updates
    if limit is None or limit >= total:
        return world_model_updates, policy_updates
    policy_share = round(limit * policy_updates / total)
    if limit >= 2 and world_model_updates and policy_updates:
        policy_share = min(max(policy_share, 1), limit - 1)
    return limit - policy_share, policy_share
