"""The contract between the inputs and the store: where received lines go, and where they got to.

An input calls ``append`` with one container's lines and may answer its sender, or move its place in a file,
once it returns. ``collector/store.py`` implements it; enrichment makes the sources.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from collector.sink import Source
from logdrivers.block import Block

__all__ = ["Intake", "Sources"]

#: ``(container_id, container_name, image, input) -> Source``: enrichment from what a message says of its
#: container. Id and image may be "" where the message does not say.
Sources = Callable[[str, str, str, str], Source]


class Intake(Protocol):
    """Takes blocks into the store. Called from one thread."""

    def append(self, source: Source, block: Block, checkpoint: tuple[str, bytes] | None = None) -> None:
        """Store one block; what was stored survives kill -9 once this returns.

        ``checkpoint`` (key, value) is stored with the block, both or neither: after any crash
        ``checkpoint(key)`` tells exactly which blocks are in. Raises OSError (disk full, I/O) with nothing
        of the block kept.
        """

    def checkpoint(self, key: str) -> bytes | None:
        """The last value stored for ``key``, or None."""
