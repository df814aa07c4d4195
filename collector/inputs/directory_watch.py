"""Tells which of many directories had a file written, made, renamed or removed (inotify(7)).

One descriptor to poll for all of them; what changed in a directory is left to whoever asks. When the kernel
drops events, every directory counts as changed.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

__all__ = ["DirectoryWatch"]

_MODIFY, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x40, 0x80, 0x100, 0x200
_OVERFLOW, _IGNORED, _ONLYDIR = 0x4000, 0x8000, 0x0100_0000
_MASK = _MODIFY | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLYDIR
_EVENT = struct.Struct("iIII")

_libc = ctypes.CDLL(None, use_errno=True)


class DirectoryWatch:
    """A set of watched directories. Not thread-safe."""

    def __init__(self) -> None:
        self._fd: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            number = ctypes.get_errno()
            raise OSError(
                number, f"inotify_init1 failed: {os.strerror(number)} (fs.inotify.max_user_instances)"
            )
        self._directories: dict[int, Path] = {}
        self._users: dict[Path, int] = {}
        self._numbers: dict[Path, int] = {}

    def fileno(self) -> int:
        """Readable when ``changed`` has something to say."""
        return self._fd

    def add(self, directory: Path) -> None:
        """Watch; each ``add`` needs its ``remove``. Raises OSError naming the directory (missing, no watches left)."""
        if directory not in self._users:
            number = _libc.inotify_add_watch(self._fd, os.fsencode(directory), _MASK)
            if number < 0:
                error = ctypes.get_errno()
                raise OSError(error, f"watching failed: {os.strerror(error)}", str(directory))
            self._directories[number] = directory
            self._numbers[directory] = number
        self._users[directory] = self._users.get(directory, 0) + 1

    def remove(self, directory: Path) -> None:
        """Watch no longer (the directory may be gone already)."""
        users = self._users.get(directory, 0)
        if users > 1:
            self._users[directory] = users - 1
            return
        if users:
            del self._users[directory]
        number = self._numbers.pop(directory, None)
        if number is not None:
            self._directories.pop(number, None)
            _libc.inotify_rm_watch(self._fd, number)

    def changed(self) -> set[Path]:
        """Directories with changes since the last call. Does not wait."""
        found: set[Path] = set()
        while True:
            try:
                data = os.read(self._fd, 1 << 16)
            except BlockingIOError:
                return found
            offset = 0
            while offset < len(data):
                number, mask, _, length = _EVENT.unpack_from(data, offset)
                offset += _EVENT.size + length
                if mask & _OVERFLOW:
                    found.update(self._users)
                elif (directory := self._directories.get(number)) is not None:
                    found.add(directory)
                    if mask & _IGNORED:
                        self._forget(number, directory)

    def _forget(self, number: int, directory: Path) -> None:
        """The kernel ended the watch: the directory is gone."""
        del self._directories[number]
        if self._numbers.get(directory) == number:
            del self._numbers[directory]

    def watched(self, directory: Path) -> bool:
        """Whether changes of this directory are being told."""
        return directory in self._numbers

    def close(self) -> None:
        """End all watches."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
