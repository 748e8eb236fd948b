"""The schedule of a run: collect, then the updates of each phase, for example world model and policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any, Protocol

from tensordict import TensorDict

from lit_awm.distributed import gather_objects, rank


class ExperienceSource(Protocol):
    """What the loop asks of the data: new experience, and batches of it."""

    def collect(self) -> None:
        """Add experience from the real environment."""

    def sample_trajectories(self) -> TensorDict:
        """Return a batch for a world model, or for an agent without one."""

    def sample_initial_states(self) -> TensorDict:
        """Return a batch for the policy."""


class AlternatingLoop:
    """A dataloader of which one pass is one outer iteration.

    A pass collects experience, then yields the batches of each phase in turn, tagged with its name; with several turns
    a share of them, again and again. Those of the phase ``"policy"`` are, within a turn, one and the same batch of
    initial states: states that stay the same let warm imagination reuse its last pass. Those of every other phase are
    fresh trajectories. The loop has a length, so that Lightning does not draw ahead, and a state, so that a run resumes
    in the middle of a pass.

    Args:
        source: Collects and samples.
        updates: The number of batches of each phase, in order.
        limit: After how many batches of a pass the trainer stops, if it does; all phases are then shortened alike, and
            from their number on at least one batch of each is kept.
        turns: In how many turns the batches of a pass come.
    """

    def __init__(
        self, source: ExperienceSource, updates: Mapping[str, int], limit: int | None = None, turns: int = 1
    ) -> None:
        self.source = source
        self.full_length = sum(updates.values())
        self.updates = _shorten(updates, limit)
        self.turns, self._phases = turns, _in_turns(self.updates, turns)
        self.position = 0
        self._resume_at = 0
        self._initial_states: TensorDict | None = None

    def __len__(self) -> int:
        return self.full_length  # to which the trainer applies its own limit

    def __iter__(self) -> Iterator[TensorDict]:
        # Lightning stops asking after the last batch: no line after the last `yield` is ever run.
        start, self._resume_at = self._resume_at, 0
        for position in range(start, len(self._phases)):
            if position == 0:
                self.source.collect()
            self.position = position + 1
            yield self._batch(position)

    def _batch(self, position: int) -> TensorDict:
        phase = self._phases[position]
        if phase != "policy":
            return self.source.sample_trajectories().set_non_tensor("phase", phase)
        if self._initial_states is None or self._phases[position - 1 : position] != ["policy"]:
            self._initial_states = self.source.sample_initial_states()
        return self._initial_states.copy().set_non_tensor("phase", phase)

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the pass and what each process holds on to; all of them must call it."""
        states = self._initial_states
        return {
            "position": self.position,
            "updates": dict(self.updates),
            "turns": self.turns,
            "initial_states": gather_objects(None if states is None else states["observation"]),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; a whole pass counts as the beginning of the next.

        Raises:
            ValueError: If it was taken within a pass of other numbers of updates, or of turns.
        """
        updates = state_dict["updates"]
        position = state_dict["position"] % sum(updates.values())
        if position and state_dict["turns"] != self.turns:
            raise ValueError(
                f"turns must be {state_dict['turns']} to resume within a pass, got {self.turns}. Resume from the end "
                "of a pass to change them."
            )
        if position and updates != self.updates:
            names = " and ".join(f"{phase}_updates" for phase in updates)
            theirs, ours = (" and ".join(map(str, counts.values())) for counts in (updates, self.updates))
            raise ValueError(
                f"{names} must be {theirs} to resume within a pass, got {ours}. Resume from the end of a pass to "
                "change them."
            )
        self.position = self._resume_at = position
        states = state_dict["initial_states"][rank()]
        self._initial_states = None if states is None else TensorDict({"observation": states}, len(states))


def _in_turns(updates: Mapping[str, int], turns: int) -> list[str]:
    """Return the phase of each batch of a pass.

    Every phase has a batch in the first turn, if it has any, and one in the last, if it has two: a pass ends with a
    batch of the last phase.
    """
    batches = [(_turn_of(i, count, turns), phase) for phase, count in updates.items() for i in range(count)]
    return [phase for _, phase in sorted(batches, key=itemgetter(0))]  # in a turn as they are given


def _turn_of(batch: int, count: int, turns: int) -> int:
    """Return in which turn a batch of a phase with ``count`` of them comes."""
    return batch * (turns - 1) // (count - 1) if 1 < count < turns else batch * turns // count


def _shorten(updates: Mapping[str, int], limit: int | None) -> dict[str, int]:
    total = sum(updates.values())
    if limit is None or limit >= total:
        return dict(updates)
    (first, *others), shares, left = updates, dict[str, int](), limit
    waiting = sum(count > 0 for count in updates.values())  # phases that have no batch yet
    has_enough = limit >= waiting
    for phase in others:
        share = round(limit * updates[phase] / total)
        if has_enough and updates[phase]:
            waiting -= 1
            share = min(max(share, 1), left - waiting)
        shares[phase] = share
        left -= share
    return {first: left, **shares}
