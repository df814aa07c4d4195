"""What a search answers: lines, or why it was given up. How it finds them is ``collector/search.py``'s."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from collector.sink import Source
from logdrivers.block import Stream

__all__ = ["TIME_LIMIT_SECONDS", "Hit", "SearchError"]

#: How long a search may take when nobody says otherwise.
TIME_LIMIT_SECONDS: Final = 30.0


class SearchError(Exception):
    """A search that was given up: why, and what to change."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A line that matches."""

    time_ns: int
    source: Source
    stream: Stream
    line: bytes  #: as the container wrote it, without its newline
    source_number: int
    line_number: int  #: lines of this source stored before it
    attrs: Mapping[str, str]  #: what came with it: GELF's further fields, labels
