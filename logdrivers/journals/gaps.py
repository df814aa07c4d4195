"""Where lines are missing: why, as far as the journal knows, and the message that stands at the place.

Whoever carries lines from a journal onwards (a driver's delivery, the collector's tail) finds the gap by the
entries' line numbers, counts it, and leaves the marker in the stream, so that its readers know too.
"""

from __future__ import annotations

from collections.abc import Mapping

from logdrivers.block import Block, Encoding, Stream
from logdrivers.journal import JournalReader, KnowsLosses
from logdrivers.journals.files import JOURNAL_FULL

__all__ = ["lost_by_cause", "marker"]


def lost_by_cause(
    reader: JournalReader, first_line: int, end_line: int, otherwise: str = JOURNAL_FULL
) -> Mapping[str, int]:
    """How many of the missing lines ``[first_line, end_line)`` went for which cause.

    ``otherwise`` is the cause for a journal that keeps no record of causes.
    """
    if isinstance(reader, KnowsLosses):
        return reader.losses(first_line, end_line)
    return {otherwise: end_line - first_line}


def marker(cause: str, lines: int, time_ns: int) -> Block:
    """The message for the place of a gap. It is ours: counted neither as written nor as delivered."""
    text = b"taffrail: %d lines dropped here: %s\n" % (lines, cause.encode())
    return Block(text, Encoding.LINES, Stream.STDERR, time_ns, time_ns, 1)
