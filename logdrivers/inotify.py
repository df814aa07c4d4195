"""Waiting for files to change: a small inotify(7) watch for whoever follows a log.

Its descriptor works with ``poll``, ``select`` and asyncio's ``add_reader``; reading never waits. An event says
where to look, never what is there: a follower asks its reader, and asks once more after starting the watch.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

__all__ = [
    "CLOSE_WRITE",
    "CREATE",
    "DELETE",
    "LOG_CHANGES",
    "MODIFY",
    "MOVED_FROM",
    "MOVED_TO",
    "OVERFLOW",
    "Event",
    "Watch",
]

# inotify(7)
MODIFY = 0x00000002
CLOSE_WRITE = 0x00000008
MOVED_FROM = 0x00000040
MOVED_TO = 0x00000080
CREATE = 0x00000100
DELETE = 0x00000200
#: The kernel's queue was full: anything may have changed, ``watch`` is -1.
OVERFLOW = 0x00004000
IGNORED = 0x00008000

#: What a follower of a log directory waits for: lines, and new files.
LOG_CHANGES = MODIFY | CREATE | MOVED_TO

_EVENT = struct.Struct("iIII")
_BUFFER = 64 * 1024
_libc = ctypes.CDLL(None, use_errno=True)


class Event(NamedTuple):
    """One change."""

    watch: int  #: what ``add`` returned; -1 for OVERFLOW
    mask: int
    name: str  #: in the watched directory; "" for the watched file itself


class Watch:
    """Watches files and directories. Raises OSError naming the limit if the host allows no more."""

    def __init__(self) -> None:
        self._descriptor = _checked(
            _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "make a watch (fs.inotify.max_user_instances)"
        )

    def fileno(self) -> int:
        """The descriptor, readable when there are events."""
        return self._descriptor

    def add(self, path: Path, mask: int = LOG_CHANGES) -> int:
        """Watch a file or directory from now on; its number. Adding it again replaces the mask."""
        return _checked(
            _libc.inotify_add_watch(self._descriptor, os.fsencode(path), mask),
            f"watch {path} (fs.inotify.max_user_watches)",
        )

    def remove(self, watch: int) -> None:
        """Stop watching; no matter if the file is gone, which ended the watch already."""
        _libc.inotify_rm_watch(self._descriptor, watch)

    def read(self) -> list[Event]:
        """The changes since the last read; empty if there are none."""
        try:
            data = os.read(self._descriptor, _BUFFER)
        except BlockingIOError:
            return []
        events: list[Event] = []
        at = 0
        while at < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            if not mask & IGNORED:
                events.append(Event(watch, mask, os.fsdecode(data[at : at + length].rstrip(b"\0"))))
            at += length
        return events

    def close(self) -> None:
        """End all watches."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _checked(result: int, attempt: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)}: could not {attempt}")
    return result
