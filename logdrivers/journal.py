"""The journal: where a container's lines are on disk before anything else sees them.

One interface, several forms. json-file's own files are a journal (the time in each record allows a binary
search), so with that driver a line is on disk once; every other driver gets framed, checksummed,
compressed segments (``logdrivers/journals/segments.py``). One process appends; any number read, in any process.

Exactly once from pipe to disk: the writer passes with each block the source offsets that are covered once
the block is in (``mark``). After kill -9 at any point, opening the journal again returns the mark that
holds, so the writer knows which bytes of its source are in and which are not. The kernel's page cache is
what a kill cannot take; a power cut may take the last seconds, and then a torn tail is cut off and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from logdrivers.block import Block, Stream

__all__ = ["Batch", "Entry", "Journal", "JournalReader", "KnowsLosses", "Mark", "Position", "Resume"]


class Position(NamedTuple):
    """A place between two entries. Compares in order; stays valid through rotation and restarts."""

    segment: int  #: number of the segment or file generation, rising from 1
    offset: int  #: byte offset in it


class Mark(NamedTuple):
    """How many bytes of each source stream are in the journal."""

    stdout: int
    stderr: int


@dataclass(frozen=True, slots=True)
class Resume:
    """What a writer finds when it opens a journal again.

    ``records`` is above zero only when a kill came in the middle of an append and the journal's form
    keeps single records (json-file): so many leading records of the block that follows ``mark`` are
    already in and are not to be appended again.
    """

    mark: Mark
    records: int = 0
    torn_bytes: int = 0  #: bytes of an incomplete record that were cut off the end
    stream: Stream = Stream.MIXED  #: of the records, if above zero
    source_bytes: int = 0  #: bytes of that stream the records cover: the source goes on behind them


class Entry(NamedTuple):
    """A block with its place in the journal."""

    block: Block
    end: Position  #: the position behind it: a cursor that has consumed the entry stores this
    first_line: int  #: lines written to this journal before this block, since it was made


class Batch(NamedTuple):
    """What one read returned."""

    entries: Sequence[Entry]
    lost_lines: int  #: lines between the position asked for and the first entry that retention removed


class Journal(Protocol):
    """The writing side. One owner; not thread-safe."""

    def resume(self) -> Resume:
        """Where the writer that had the journal before got to. Call once, before the first append."""

    def append(self, block: Block, mark: Mark) -> Position:
        """Write one block; ``mark`` holds once it is in. Returns the position behind it.

        Raises OSError (disk full, I/O) with nothing of the block kept, or, json-file, whole records of it
        kept and known to ``resume``.
        """

    def give_up(self, mark: Mark) -> None:
        """After a failed append: the source up to ``mark`` is not coming. The caller counts the loss."""

    def written(self) -> tuple[int, int]:
        """Lines and bytes (as the container wrote them) appended since the journal was made."""

    def end(self) -> Position:
        """The position behind the last entry."""

    def close(self) -> None:
        """Close the files. What was appended stays."""


class JournalReader(Protocol):
    """The reading side. Never blocks and never waits; a follower asks again."""

    def first(self) -> Position:
        """The oldest position still held."""

    def end(self) -> Position:
        """The position behind the newest complete entry now."""

    def end_line(self) -> int:
        """Lines written to the journal before ``end``, since it was made."""

    def read(self, start: Position, max_bytes: int = 1 << 20) -> Batch:
        """Entries from ``start`` on, about ``max_bytes`` of them and at least one; none if nothing is new."""

    def locate(self, time_ns: int) -> Position:
        """The position of the first entry that can hold a line of this time or later; O(log n)."""

    def tail(self, lines: int) -> Position:
        """A position with at least ``lines`` lines behind it, as late as the form allows."""

    def close(self) -> None:
        """Close the files."""


@runtime_checkable
class KnowsLosses(Protocol):
    """What a JournalReader offers besides, if its journal remembers why lines are missing."""

    def losses(self, first_line: int, end_line: int) -> Mapping[str, int]:
        """How many of the missing lines ``[first_line, end_line)`` went for which cause."""
