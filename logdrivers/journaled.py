"""What the drivers that ship lines have alike: our segments as their journal, tags and attributes checked.

gelf, fluentd, syslog and journald add their options and their sink.
"""

from __future__ import annotations

from collections.abc import Mapping

from logdrivers.attributes import check_attributes
from logdrivers.driver import Info
from logdrivers.journal import Journal, JournalReader
from logdrivers.journals.files import journal_directory
from logdrivers.journals.reader_cursors import DELIVERY, register_reader
from logdrivers.journals.segments import (
    SEGMENT_OPTIONS,
    SegmentJournal,
    SegmentReader,
    parse_budget,
    parse_keep,
)
from logdrivers.options import EXTRA_OPTIONS

__all__ = ["JOURNALED_OPTIONS", "JournaledDriver"]

#: The options these drivers have in common.
JOURNALED_OPTIONS = EXTRA_OPTIONS | SEGMENT_OPTIONS


class JournaledDriver:
    """The journal half of a driver that has a sink."""

    def validate(self, options: Mapping[str, str]) -> None:
        """Refuse a tag, a pattern or a size that cannot work, at create rather than at start."""
        parse_keep(options)
        check_attributes(options)

    def journal(self, info: Info) -> Journal:
        """The container's segments, for writing; they wait for the sink, also before its delivery begins."""
        journal = SegmentJournal(info.directory, parse_budget(info.options), parse_keep(info.options))
        try:
            register_reader(journal_directory(info.directory), DELIVERY)
        except (OSError, ValueError):
            journal.close()
            raise
        return journal

    def reader(self, info: Info) -> JournalReader | None:
        """The container's segments, for reading."""
        return SegmentReader(info.directory)
