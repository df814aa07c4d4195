"""The contract between the store and whoever sends its lines on (``exporters/``).

The store is the spool: an exporter owns a named cursor, asks for the next batch, sends it, and moves the
cursor when the sink has answered for every line of it, never before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from logdrivers.block import Block

__all__ = ["Cursor", "Source", "StoredBatch", "StoredBlock"]


@dataclass(frozen=True, slots=True)
class Source:
    """Whose lines they are: written once to the store, referred to by number afterwards.

    Equal sources get the same number. A container that is renamed becomes a new source.
    """

    container_id: str
    container_name: str
    image: str
    host: str
    input: str  #: which input received it: ``json-file``, ``gelf``, ``fluentd``, ``journal``
    engine: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.container_id, self.container_name, self.image, self.host, self.input))


class StoredBlock(NamedTuple):
    """A block as it comes back from the store."""

    block: Block
    source: Source
    source_number: int  #: the store's number of the source: stable, part of a document's identity
    first_line: int  #: lines of this source stored before this block: stable, never reused


class StoredBatch(NamedTuple):
    """The next blocks behind a cursor."""

    blocks: Sequence[StoredBlock]
    token: object  #: hand it back to ``Cursor.commit``
    lost_lines: int  #: lines retention removed before this cursor had them (counted by the store too)


class Cursor(Protocol):
    """A named, durable place in the store, owned by one exporter."""

    def next(self, max_bytes: int = 1 << 20) -> StoredBatch:
        """The next blocks; an empty batch when there is nothing new. Does not move the cursor."""

    def commit(self, token: object) -> None:
        """Move behind the batch the token came with. Durable when it returns."""

    def lag(self) -> tuple[int, int]:
        """Lines and bytes stored that are still ahead of the cursor."""
