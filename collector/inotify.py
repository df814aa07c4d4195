"""The kernel's file system events (inotify(7)), with the names of what changed.

A thin binding: which directories to watch, and what an event means, is left to those who use it.
``inputs/directory_watch.py`` is for those who only want to know that something in a directory changed.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "CLOSE_WRITE",
    "CREATE",
    "DELETE",
    "IS_DIRECTORY",
    "MODIFY",
    "MOVED_FROM",
    "MOVED_TO",
    "OVERFLOW",
    "Change",
    "Inotify",
]

MODIFY, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x2, 0x8, 0x40, 0x80, 0x100, 0x200
OVERFLOW, IGNORED, IS_DIRECTORY, _ONLYDIR = 0x4000, 0x8000, 0x4000_0000, 0x0100_0000
_EVENT = struct.Struct("iIII")
_CHUNK = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


class Change(NamedTuple):
    """One event."""

    watch: int  #: the watch's number; -1 for ``OVERFLOW``
    mask: int
    name: bytes  #: of the entry in the directory; b"" for the directory itself


class Inotify:
    """One descriptor with many watched directories. Not thread-safe."""

    def __init__(self) -> None:
        """Raises OSError when there are no instances left (fs.inotify.max_user_instances)."""
        self._fd: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            number = ctypes.get_errno()
            raise OSError(
                number, f"inotify_init1 failed: {os.strerror(number)} (fs.inotify.max_user_instances)"
            )

    def fileno(self) -> int:
        """Readable when ``read`` has something to say."""
        return self._fd

    def add(self, directory: Path | str, mask: int) -> int:
        """Watch a directory; the same directory has the same number. Raises OSError naming it."""
        number: int = _libc.inotify_add_watch(self._fd, os.fsencode(directory), mask | _ONLYDIR)
        if number < 0:
            error = ctypes.get_errno()
            raise OSError(error, f"watching failed: {os.strerror(error)}", str(directory))
        return number

    def remove(self, watch: int) -> None:
        """Watch no longer; that the kernel ended the watch already is no error."""
        _libc.inotify_rm_watch(self._fd, watch)

    def read(self) -> list[Change]:
        """What happened since the last call, at most about 64 KB of it; never waits."""
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return []
        changes = []
        at = 0
        while at < len(data):
            watch, mask, _cookie, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            if not mask & IGNORED:
                changes.append(Change(watch, mask, data[at : at + length].rstrip(b"\0")))
            at += length
        return changes

    def close(self) -> None:
        """End all watches. Closing twice does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
