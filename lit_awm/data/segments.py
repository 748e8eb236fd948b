"""What has been collected, in the parts in which it was added to the buffer."""

from __future__ import annotations

from typing import Any

from tensordict import TensorDict, TensorDictBase

from lit_awm.distributed import gather_objects_in_first, process_count, rank

Segment = dict[str, Any]


class Segments:
    """The parts that are still in a buffer of ``capacity`` rows, each with its ``rank``, ``first`` row and ``rows``.

    None of them ever changes, so that a checkpoint needs to write the new ones only. With several processes each has
    a buffer of its own, and all add equally many rows at a time. Rows are numbered across processes: in each round
    those of the first process come before those of the second.

    Args:
        capacity: Rows of the buffer.

    Attributes:
        collected: Rows that this process has added so far.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.collected = capacity, 0
        self._own: list[Segment] = []
        self._everyones: list[Segment] = []  # in the first process of several
        self._told = -1  # the last row of ours that the first process knows of

    def add(self, rows: TensorDictBase) -> None:
        """Add the rows ``(N,)`` of one collection."""
        count = len(rows)
        first = self.collected * process_count() + rank() * count
        self._own.append({"first": first, "rank": rank(), "rows": rows.flatten_keys(".").to_dict()})
        self.collected += count
        self._own = [segment for segment in self._own if self._is_in_use(segment)]

    def state(self) -> list[Segment]:
        """Return the parts, in the first of several processes those of all; all must call it."""
        if process_count() == 1:
            return list(self._own)
        new = [segment for segment in self._own if segment["first"] > self._told]
        self._told = max([self._told, *(segment["first"] for segment in new)])
        told = gather_objects_in_first(new)
        if told is None:
            return list(self._own)
        self._everyones += [segment for segments in (new, *told[1:]) for segment in segments]
        self._everyones.sort(key=lambda segment: segment["first"])
        self._everyones = [segment for segment in self._everyones if self._is_in_use(segment)]
        return list(self._everyones)

    def load(self, segments: list[Segment], collected: int) -> list[tuple[Segment, TensorDict]]:
        """Go on from what ``state`` returned, after ``collected`` rows of ours.

        Returns:
            Our parts, each with its rows.
        """
        self.collected = collected
        self._everyones = list(segments) if process_count() > 1 and rank() == 0 else []
        self._own = [segment for segment in segments if segment["rank"] == rank()]
        self._told = max((segment["first"] for segment in self._own), default=-1)
        return [(each, TensorDict(each["rows"], batch_size=_count(each)).unflatten_keys(".")) for each in self._own]

    @property
    def cursor(self) -> int:
        """Where in the buffer the oldest of our parts begins."""
        return self._first(self._own[0]) % self.capacity if self._own else 0

    def _first(self, segment: Segment) -> int:
        """Return the number of the first row among those of its process."""
        return (segment["first"] - segment["rank"] * _count(segment)) // process_count()

    def _is_in_use(self, segment: Segment) -> bool:
        """Tell whether not all rows have been overwritten."""
        return self._first(segment) + _count(segment) > self.collected - self.capacity


def _count(segment: Segment) -> int:
    return len(segment["rows"]["observation"])
