"""Recorded experience: kept in memory or on disk, served as batches, saved with a run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import LazyMemmapStorage, LazyTensorStorage, RandomSampler, ReplayBuffer, SliceSampler

from lit_awm.data.collectors import TRAJECTORY
from lit_awm.data.segments import Segment, Segments

AFTER = (("next", "observation"), ("next", "reward"), ("next", "terminated"))
STORED = ("observation", "action", "is_init", TRAJECTORY, *AFTER)
STORED_FOR_AGENTS = (*STORED, "return_to_go", "episode_return")
MASK = ("collector", "mask")  # what the sampler says about steps that fill up a slice
DRAWN_AT_ONCE = 10  # batches of trajectories, since to draw one takes nearly as long

ImagineFrom = Literal["start", "anywhere"]


class ExperienceBuffer:
    """The last ``capacity`` steps, in a replay buffer of TorchRL.

    Args:
        capacity: Steps that it holds.
        slice_length: Steps of the trajectories that are drawn.
        batch_size: Trajectories that are drawn at a time.
        is_for_agent: Whether to keep also what steps have earned, for agents.
        storage_dir: Folder for files that are mapped into memory and go with the buffer; None to keep it in memory.
    """

    def __init__(
        self, capacity: int, slice_length: int, batch_size: int, is_for_agent: bool, storage_dir: str | None = None
    ) -> None:
        self.slice_length = slice_length
        self.is_for_agent, self.keys = is_for_agent, STORED_FOR_AGENTS if is_for_agent else STORED
        self._folder = None
        if storage_dir is not None:
            Path(storage_dir).mkdir(parents=True, exist_ok=True)
            self._folder = tempfile.TemporaryDirectory(prefix="experience-", dir=storage_dir)
        self.segments = Segments(capacity)
        self._drawn: list[TensorDict] = []  # batches that are to be served next
        self._buffer = ReplayBuffer(
            storage=LazyMemmapStorage(capacity, scratch_dir=self._folder.name)
            if self._folder
            else LazyTensorStorage(capacity),
            sampler=RandomSampler()
            if is_for_agent and slice_length == 1  # every transition is as likely, however long its episode
            else SliceSampler(
                slice_len=slice_length,
                traj_key=TRAJECTORY,
                strict_length=is_for_agent,
                pad_output=not is_for_agent,
                truncated_key=None,  # nobody reads where slices end
                cache_values=True,
            ),
            batch_size=DRAWN_AT_ONCE * batch_size * slice_length,
        )

    def __len__(self) -> int:
        return len(self._buffer)

    def __getitem__(self, index: Any) -> TensorDictBase:
        return self._buffer[index]

    @property
    def collected(self) -> int:
        """Steps that have been added so far, those that have been overwritten too."""
        return self.segments.collected

    def add(self, episodes: TensorDictBase) -> None:
        """Add a round of experience ``(N, T)``."""
        self._drawn = []
        rows = episodes.select(*self.keys).reshape(-1).clone()
        until_full = self.segments.capacity - self.collected % self.segments.capacity
        for part in (rows[:until_full], rows[until_full:]):  # each of them in one piece
            if len(part):
                where = self._buffer.extend(part)
                self.segments.add(part if self._folder is None else self._stored(where))

    def sample_trajectories(self) -> TensorDict:
        """Return slices ``(B, H)`` of recorded episodes.

        For world models those of shorter episodes go on with their last step; ``mask`` then tells which steps count.
        """
        if not self._drawn:
            rows, info = self._buffer.sample(return_info=True)
            rows = rows.select(*self.keys)
            if (mask := info.get(MASK)) is not None and not mask.all():
                rows["mask"] = mask
            self._drawn = list(rows.reshape(DRAWN_AT_ONCE, -1, self.slice_length).unbind(0))
        return self._drawn.pop(0)

    def sample_states(self, count: int, imagine_from: ImagineFrom) -> TensorDict:
        """Return ``(count,)`` recorded states as ``observation``: those in which episodes began, or any."""
        self._drawn = []  # the world model has had its batches
        rows = self._buffer.storage[: len(self)]
        if imagine_from == "anywhere":
            chosen = torch.randint(len(rows), (count,))
        else:
            first = rows["is_init"].flatten().nonzero().flatten()
            chosen = first[torch.randint(len(first), (count,))]
        return TensorDict({"observation": rows["observation"][chosen]}, batch_size=count)

    def state(self) -> list[Segment]:
        """Return the experience, in the first of several processes that of all; all must call it."""
        return self.segments.state()

    def drawn(self) -> dict[str, Tensor]:
        """Return the batches that are to be served next."""
        return TensorDict.stack(self._drawn).flatten_keys(".").to_dict() if self._drawn else {}

    def load(self, segments: list[Segment], drawn: dict[str, Tensor], collected: int) -> None:
        """Go on from what ``state`` and ``drawn`` returned, after ``collected`` steps of this process."""
        parts = self.segments.load(segments, collected)
        if any(key not in rows.keys(True) for _, rows in parts for key in self.keys):
            raise ValueError(
                "ckpt_path must be a checkpoint that tells of every step whether it was terminated, got none."
            )
        self._buffer.empty()  # of what a fit before has left in it
        # The oldest may have been overwritten: go on where it had been written to.
        self._buffer.writer.load_state_dict({"_cursor": self.segments.cursor})
        places = [self._buffer.extend(rows) for _, rows in parts]
        if self._folder is not None:
            for (segment, _), where in zip(parts, places, strict=True):
                segment["rows"].update(self._stored(where).flatten_keys(".").to_dict())
        self.load_drawn(drawn)

    def load_drawn(self, drawn: dict[str, Tensor]) -> None:
        """Go on with the batches that ``drawn`` returned."""
        batches = TensorDict(drawn).auto_batch_size_(3).unflatten_keys(".")
        self._drawn = list(batches.unbind(0)) if drawn else []

    def _stored(self, where: Tensor) -> TensorDictBase:
        """Return rows that have just been written as they are in the storage, without a copy."""
        first, last = int(where[0]), int(where[-1])
        assert last - first == len(where) - 1
        return self._buffer.storage[first : last + 1].apply(lambda value: value.as_subclass(Tensor))
