"""The number of tasks and its limit; v1 and v2 have the same two files.

Source of the formats: the kernel's Documentation/admin-guide/cgroup-v1/pids.rst.
"""

from __future__ import annotations

import os
from pathlib import Path

from collector.cgroup.files import FlatKeys, number, number_or_max, open_file, read_once

__all__ = ["PidsReader"]


_EVENTS = FlatKeys(b"max")


class PidsReader:
    """One container's tasks (processes and threads, as ``docker stats`` counts PIDS)."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._current = open_file(directory, "pids.current")
        self._events = open_file(directory, "pids.events")
        self.limit_events: int | None = None  #: times a task could not be made for the limit; as last read
        self.limit: int | None = None  #: None = unlimited
        self._event_bytes = b""  # of the last reading

    def read_limits(self) -> None:
        """Read the limit again."""
        data = read_once(self._directory, "pids.max")
        self.limit = None if data is None else number_or_max(data)

    def read(self, still: bool = False) -> int | None:
        """The number of tasks, or None without the controller. Raises OSError, ValueError.

        ``still``: no process of the container ran since the last reading, so none can have failed to fork.
        """
        if self._events >= 0 and not (still and self._event_bytes):
            data = os.pread(self._events, 256, 0)
            if data != self._event_bytes:
                self.limit_events = _EVENTS.values(data)[0]
                self._event_bytes = data
        return number(os.pread(self._current, 64, 0)) if self._current >= 0 else None

    def descriptors(self) -> tuple[int, ...]:
        """What is kept open."""
        return (self._current, self._events)
