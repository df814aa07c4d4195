"""What the drivers that ship lines have alike: our segments as their journal, tags and attributes checked.

``logdrivers/gelf.py`` and ``logdrivers/fluentd.py`` add their options and their sink.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from logdrivers.driver import Info
from logdrivers.journal import Journal, JournalReader
from logdrivers.options import extra_attributes
from logdrivers.segments import SegmentJournal, SegmentReader
from logdrivers.tag import check_tag

__all__ = ["JournaledDriver"]


class JournaledDriver:
    """The journal half of a driver that has a sink."""

    def validate(self, options: Mapping[str, str]) -> None:
        """Refuse a tag or a pattern that cannot work, at create rather than at start."""
        check_tag(options.get("tag", ""))
        extra_attributes(Info("", "", "", "", (), 0, Path(), options=options))

    def journal(self, info: Info) -> Journal:
        """The container's segments, for writing."""
        return SegmentJournal(info.directory)

    def reader(self, info: Info) -> JournalReader | None:
        """The container's segments, for reading."""
        return SegmentReader(info.directory)
