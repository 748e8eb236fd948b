from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict

from lit_awm.loops import AlternatingLoop


class CountingSource:
    """Counts what it is asked for; every batch tells its number."""

    def __init__(self) -> None:
        self.collected = self.trajectories = self.initial = 0

    def collect(self) -> None:
        self.collected += 1

    def sample_trajectories(self) -> TensorDict:
        self.trajectories += 1
        return TensorDict({"observation": torch.full((2, 3, 1), self.trajectories)}, [2, 3])

    def sample_initial_states(self) -> TensorDict:
        self.initial += 1
        return TensorDict({"observation": torch.full((2, 1), self.initial)}, [2])


def describe(batch: TensorDict) -> tuple[str, int]:
    return batch["phase"], int(batch["observation"].flatten()[0])


def test_a_pass_collects_once_then_fits_the_model_then_the_policy_on_one_batch_of_states() -> None:
    source = CountingSource()
    loop = AlternatingLoop(source, {"world_model": 3, "policy": 2})
    assert len(loop) == 5
    expected = [("world_model", 1), ("world_model", 2), ("world_model", 3), ("policy", 1), ("policy", 1)]
    assert [describe(batch) for batch in loop] == expected
    assert source.collected == 1
    assert [describe(batch) for batch in loop][-1] == ("policy", 2)
    assert source.collected == 2


def test_turns_give_each_phase_its_share_again_and_again() -> None:
    source = CountingSource()
    loop = AlternatingLoop(source, {"teacher": 2, "world_model": 3, "policy": 4}, turns=2)
    first = [("teacher", 1), ("world_model", 2), ("world_model", 3), ("policy", 1), ("policy", 1)]
    second = [("teacher", 4), ("world_model", 5), ("policy", 2), ("policy", 2)]
    assert [describe(batch) for batch in loop] == first + second
    assert (len(loop), source.collected) == (9, 1)
    for stop in range(1, 9):
        batches = iter(loop)
        for _ in range(stop):
            stopped_at = describe(next(batches))
        state = loop.state_dict()
        expected = [describe(batch) for batch in batches]
        resumed = AlternatingLoop(source, {"teacher": 2, "world_model": 3, "policy": 4}, turns=2)
        resumed.load_state_dict(state)
        again = [describe(batch) for batch in resumed]
        assert [phase for phase, _ in again] == [phase for phase, _ in expected]
        if stopped_at[0] == again[0][0] == "policy":
            assert again[0] == stopped_at  # on the states of the turn that it stopped in


@pytest.mark.parametrize("policy_updates", [2, 3, 5, 9, 10, 11])
def test_a_pass_ends_with_the_policy_however_few_its_updates_are(policy_updates: int) -> None:
    loop = AlternatingLoop(CountingSource(), {"teacher": 30, "world_model": 20, "policy": policy_updates}, turns=10)
    phases = [batch["phase"] for batch in loop]
    assert phases[-1] == "policy"
    assert phases[:6] == ["teacher"] * 3 + ["world_model"] * 2 + ["policy"]
    assert [phases.count(phase) for phase in ("teacher", "world_model", "policy")] == [30, 20, policy_updates]


def test_no_policy_is_optimised_in_a_model_that_has_not_been_fitted() -> None:
    loop = AlternatingLoop(CountingSource(), {"teacher": 1, "world_model": 3, "policy": 40}, turns=10)
    phases = [batch["phase"] for batch in loop]
    assert phases[:3] == ["teacher", "world_model", "policy"]
    assert {phase: phases.count(phase) for phase in phases} == {"teacher": 1, "world_model": 3, "policy": 40}


def test_other_turns_are_refused_within_a_pass_only() -> None:
    updates = {"world_model": 4, "policy": 4}
    loop = AlternatingLoop(CountingSource(), updates, turns=2)
    batches = iter(loop)
    next(batches)
    with pytest.raises(ValueError, match="turns must be 2 to resume within a pass, got 4"):
        AlternatingLoop(CountingSource(), updates, turns=4).load_state_dict(loop.state_dict())
    for _ in batches:
        pass
    AlternatingLoop(CountingSource(), updates, turns=4).load_state_dict(loop.state_dict())


@pytest.mark.parametrize("stop", range(1, 6))
def test_a_resumed_loop_goes_on_where_it_stopped(stop: int) -> None:
    source = CountingSource()
    loop = AlternatingLoop(source, {"world_model": 3, "policy": 2})
    batches = iter(loop)
    for _ in range(stop):
        next(batches)
    state = loop.state_dict()
    expected = [describe(batch) for batch in batches] + [describe(batch) for batch in loop]

    resumed_source = CountingSource()
    resumed_source.collected, resumed_source.trajectories = 1, min(stop, 3)
    resumed_source.initial = 1 if stop > 3 else 0
    resumed = AlternatingLoop(resumed_source, {"world_model": 3, "policy": 2})
    resumed.load_state_dict(state)
    passes = 2 if stop < 5 else 1
    assert [describe(batch) for _ in range(passes) for batch in resumed] == expected
    assert resumed_source.collected == source.collected


def test_a_pass_that_is_left_early_does_not_disturb_the_next() -> None:
    loop = AlternatingLoop(CountingSource(), {"world_model": 2, "policy": 1})
    next(iter(loop))
    assert [phase for phase, _ in map(describe, loop)] == ["world_model", "world_model", "policy"]


def test_a_finished_pass_resumes_with_other_numbers_of_updates_and_an_unfinished_one_does_not() -> None:
    loop = AlternatingLoop(CountingSource(), {"world_model": 3, "policy": 2})
    batches = iter(loop)
    for _ in range(4):
        next(batches)
    changed = AlternatingLoop(source := CountingSource(), {"world_model": 3, "policy": 5})
    with pytest.raises(ValueError, match="must be 3 and 2 to resume within a pass, got 3 and 5"):
        changed.load_state_dict(loop.state_dict())
    next(batches)
    changed.load_state_dict(loop.state_dict())
    assert len(list(changed)) == 8
    assert source.collected == 1


@pytest.mark.parametrize(
    ("updates", "limit", "expected"),
    [
        ((300, 100), None, (300, 100)),
        ((300, 100), 1000, (300, 100)),
        ((300, 100), 40, (30, 10)),
        ((300, 100), 2, (1, 1)),
        ((300, 100), 1, (1, 0)),
        ((100, 300), 2, (1, 1)),
        ((300, 0), 2, (2, 0)),
        ((0, 300), 2, (0, 2)),
    ],
)
def test_a_limit_shortens_both_phases(updates: tuple[int, int], limit: int | None, expected: tuple[int, int]) -> None:
    loop = AlternatingLoop(CountingSource(), dict(zip(("world_model", "policy"), updates, strict=True)), limit)
    assert tuple(loop.updates.values()) == expected


def test_an_agent_without_a_world_model_has_one_phase_of_fresh_trajectories() -> None:
    source = CountingSource()
    assert [describe(batch) for batch in AlternatingLoop(source, {"agent": 3})] == [("agent", n) for n in (1, 2, 3)]
    assert (source.collected, source.initial) == (1, 0)


@pytest.mark.parametrize(
    ("updates", "limit", "expected"),
    [
        ((300, 300, 300), 9, (3, 3, 3)),
        ((30, 30, 3000), 3, (1, 1, 1)),
        ((1, 3000, 3000), 4, (1, 2, 1)),
        ((300, 300, 300), 2, (0, 1, 1)),
    ],
)
def test_a_limit_leaves_a_batch_of_each_of_three_phases(
    updates: tuple[int, ...], limit: int, expected: tuple[int, ...]
) -> None:
    phases = ("teacher", "world_model", "policy")
    loop = AlternatingLoop(CountingSource(), dict(zip(phases, updates, strict=True)), limit)
    assert tuple(loop.updates.values()) == expected
