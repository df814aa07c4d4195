"""Which segments have to go: the oldest, by age once every cursor is past them, by size in any case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from collector.segments.catalog import CursorRow

__all__ = ["Cause", "Kept", "Victim", "choose"]

Cause = Literal["size", "age"]


class Kept(Protocol):
    """What retention asks of a segment."""

    number: int
    last_ns: int | None

    @property
    def disk_bytes(self) -> int:
        """Size of its file."""


class Victim(NamedTuple):
    """A segment to remove, and why."""

    number: int
    cause: Cause


def choose(
    segments: Sequence[Kept],
    cursors: Mapping[str, CursorRow],
    max_bytes: int,
    oldest_ns: int | None,
) -> Victim | None:
    """The next segment to remove, or None. ``segments`` rise by number; the last takes appends and stays.

    ``oldest_ns``: segments whose lines are all older may go, if no cursor needs them.
    """
    if len(segments) < 2:
        return None
    first = segments[0]
    if sum(segment.disk_bytes for segment in segments) > max_bytes:
        return Victim(first.number, "size")
    if oldest_ns is None or (first.last_ns is not None and first.last_ns >= oldest_ns):
        return None
    if any(row.segment <= first.number for row in cursors.values()):
        return None
    return Victim(first.number, "age")
