"""Waiting for files to change: a small inotify(7) watch for whoever follows a log, or a tree of directories.

Its descriptor works with ``poll``, ``select`` and asyncio's ``add_reader``; reading never waits. An event says
where to look, never what is there: a follower asks its reader, and asks once more after starting the watch, and
after ``OVERFLOW``. Where the host allows no more watches, followers look from time to time instead.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

__all__ = [
    "CLOSE_WRITE",
    "CREATE",
    "DELETE",
    "ENDED",
    "IS_DIRECTORY",
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
#: The watch has ended: by ``remove``, or because what was watched is gone.
ENDED = 0x00008000
#: What changed is a directory.
IS_DIRECTORY = 0x40000000
_ONLY_DIRECTORY = 0x01000000

#: What a follower of a log directory waits for: lines, and new files.
LOG_CHANGES = MODIFY | CREATE | MOVED_TO

#: Which setting an error of the kernel's stands for.
_LIMITS = {
    errno.ENOSPC: " (fs.inotify.max_user_watches is reached)",
    errno.EMFILE: " (fs.inotify.max_user_instances, or the process's limit of open files, is reached)",
}
_EVENT = struct.Struct("iIII")
_BUFFER = 64 * 1024
_libc = ctypes.CDLL(None, use_errno=True)


class Event(NamedTuple):
    """One change."""

    watch: int  #: what ``add`` returned; -1 for OVERFLOW
    mask: int
    name: str  #: in the watched directory; "" for the watched file itself


class Watch:
    """Watches files and directories. Raises OSError naming the limit if the host allows no more.

    Not thread-safe.
    """

    def __init__(self, ends: bool = False) -> None:
        """``ends``: whether the ends of watches (``ENDED``) are told, too."""
        self._ends = ends
        self._descriptor = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "make a watch")

    def fileno(self) -> int:
        """The descriptor, readable when there are events."""
        return self._descriptor

    def add(self, path: Path | str, mask: int = LOG_CHANGES, *, directory: bool = False) -> int:
        """Watch a file or directory from now on; its number. Adding it again replaces the mask.

        ``directory``: only if it is one, else NotADirectoryError.
        """
        if directory:
            mask |= _ONLY_DIRECTORY
        number: int = _libc.inotify_add_watch(self._descriptor, os.fsencode(path), mask)
        return _checked(number, f"watch {path}")

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
            if self._ends or not mask & ENDED:
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
        limit = _LIMITS.get(number, "")
        raise OSError(number, f"{os.strerror(number)}: could not {attempt}{limit}")
    return result
