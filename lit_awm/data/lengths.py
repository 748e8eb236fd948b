"""What the lengths of slices, rounds and episodes have to be."""

from __future__ import annotations

from itertools import pairwise

from lit_awm.checks import check_count


def check_lengths(slice_length: int, round_length: int | None, episode_length: int) -> None:
    """Reject a slice longer than a round, or a round longer than an episode.

    If ``round_length`` is None, a round is as long as an episode.

    Raises:
        ValueError: If a length is below 1, or above the next one.
    """
    of_round = {} if round_length is None else {"round_length": round_length}
    check_count(1, **of_round, slice_length=slice_length)
    lengths = {"slice_length": slice_length, **of_round, "episode_length": episode_length}
    for (name, length), (bound, most) in reversed(list(pairwise(lengths.items()))):
        if length > most:
            raise ValueError(
                f"{name} must be at most {bound} {most}, got {length}. Lower `{name}`, or raise `{bound}`."
            )


def check_warmup(warmup_episodes: int, num_envs: int, round_length: int, capacity: int, trial_length: int = 0) -> None:
    """Reject a warm-up that cannot be collected, or kept together with a trial.

    Raises:
        ValueError: If it is no multiple of ``num_envs``, or more than ``capacity`` with the steps of a trial.
    """
    if warmup_episodes % num_envs:
        raise ValueError(
            f"warmup_episodes must be a multiple of num_envs {num_envs}, got {warmup_episodes}: episodes are "
            "collected num_envs at a time."
        )
    least = warmup_episodes * round_length + trial_length
    if capacity < least:
        trial = f" and a trial of {trial_length}" if trial_length else ""
        raise ValueError(f"capacity must hold the warm-up of {least - trial_length} steps{trial}, got {capacity}.")
