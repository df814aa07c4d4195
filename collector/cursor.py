"""A cursor: one exporter's place in the store, kept on disk, exact through sealing, retention and restarts.

A position is a segment, a frame of its raw form and, once the segment is sealed, a chunk of its sealed form:
the frames before were consumed in one form, the chunks before in the other. Neither changes once written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from collector.segments.catalog import CursorRow
from collector.sink import StoredBatch, StoredBlock

__all__ = ["Position", "Shelf", "StoreCursor", "Taken", "Token"]


class Position(NamedTuple):
    """A place in the store. Compares in order within one form of a segment."""

    segment: int
    frame: int = 0  #: frames consumed while the segment was raw
    chunk: int = 0  #: chunks consumed since it was sealed


class Taken(NamedTuple):
    """What a segment gives from a position on."""

    blocks: list[StoredBlock]
    end: Position


@dataclass(frozen=True, slots=True)
class Token:
    """What a batch's commit needs to know."""

    end: Position
    lost_lines: int
    lines: Mapping[int, int]  #: of the batch, by segment


class Shelf(Protocol):
    """What a cursor needs of the store."""

    def take(self, position: Position, max_bytes: int) -> Taken:
        """Blocks from a position on; where it ends if nothing is new."""

    def place(self, name: str) -> tuple[Position, int]:
        """Where the cursor stands, and the lines it lost and was not told of."""

    def move(self, name: str, token: Token) -> None:
        """Keep a new place. Durable when it returns."""

    def ahead(self, position: Position) -> tuple[int, int]:
        """Lines and bytes behind a position."""


@dataclass(slots=True)
class StoreCursor:
    """Implements ``collector.sink.Cursor``. Used by one thread at a time."""

    name: str
    _shelf: Shelf = field(repr=False)

    def next(self, max_bytes: int = 1 << 20) -> StoredBatch:
        """The next blocks, about ``max_bytes`` of them (before compression), at least one if there is one.

        json-file blocks of one source that follow each other come as one. Raises OSError.
        """
        position, lost = self._shelf.place(self.name)
        blocks: list[StoredBlock] = []
        lines: dict[int, int] = {}
        while max_bytes > 0:
            taken = self._shelf.take(position, max_bytes)
            if taken.blocks:
                segment = taken.end.segment
                lines[segment] = lines.get(segment, 0) + sum(stored.block.lines for stored in taken.blocks)
                blocks += taken.blocks
                max_bytes -= sum(len(stored.block.data) for stored in taken.blocks)
            elif taken.end == position:
                break
            position = taken.end
        return StoredBatch(blocks, Token(position, lost, lines), lost)

    def commit(self, token: object) -> None:
        """Move behind the batch the token came with. Durable when it returns. Raises OSError."""
        if not isinstance(token, Token):
            raise TypeError(f"cursor {self.name}: expected the token of a batch, got {type(token).__name__}")
        self._shelf.move(self.name, token)

    def lag(self) -> tuple[int, int]:
        """Lines and bytes (before compression) stored that are still ahead of the cursor."""
        position, _ = self._shelf.place(self.name)
        return self._shelf.ahead(position)


def settle(row: CursorRow, token: Token, skipped: dict[int, int]) -> CursorRow:
    """The row after a commit. ``skipped`` are the lines retention counted as lost, by segment, since the
    batch was handed out: those the sink has taken after all are no loss.
    """
    saved = sum(min(lines, skipped.get(segment, 0)) for segment, lines in token.lines.items())
    end = max(token.end, Position(row.segment, row.frame, row.chunk), key=lambda place: place[0])
    return CursorRow(*end, max(0, row.lost_pending - token.lost_lines - saved), max(0, row.lost - saved))
