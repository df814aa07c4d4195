"""The generations of one rotated log: the current file, ``.1``, ``.2`` and so on, plain or gzipped.

Opens them in order and reads bytes at an offset; a generation stays readable after it was renamed or
unlinked because its descriptor is kept. What the bytes mean is left to the tail.
"""

from __future__ import annotations

import ctypes
import errno
import gzip
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import Protocol

__all__ = [
    "Generation",
    "GzipGeneration",
    "PlainGeneration",
    "follows_at_once",
    "open_generations",
    "same_start",
]

#: A rotation makes the new file right after it removes the old; the kernel's times are 4 ms apart.
_AT_ONCE_NS = 20_000_000
_INFLATE = 1 << 18
_HEAD = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)
_AT_EMPTY_PATH, _STATX_BTIME = 0x1000, 0x800
_STATX_SIZE, _STATX_TIMES = 256, struct.Struct("=I76xqI4xqI")  # mask, …, btime, ctime


class Generation(Protocol):
    """One open file of the log."""

    path: Path  #: where it was when it was opened
    inode: int
    damage: str  #: why it ends before its end ("" when sound)

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``offset`` of the uncompressed log; fewer only at its end."""

    def size(self) -> int:
        """Bytes in the file now; of a gzipped one, those inflated so far."""

    def unlinked(self) -> bool:
        """True when no name leads to the file any more."""

    def times_ns(self) -> tuple[int, int]:
        """When the file was made (0 where the file system does not tell), and last written, renamed or unlinked."""

    def close(self) -> None:
        """Close the descriptor."""


class PlainGeneration:
    """A generation as the engine writes it."""

    damage = ""

    def __init__(self, path: Path, user: int = 0) -> None:
        self.path = path
        self._fd = _open_file(path, user)
        self.inode = os.fstat(self._fd).st_ino

    def read(self, offset: int, size: int) -> bytes:
        """See Generation."""
        return os.pread(self._fd, size, offset)

    def size(self) -> int:
        """See Generation."""
        return os.fstat(self._fd).st_size

    def unlinked(self) -> bool:
        """See Generation."""
        return os.fstat(self._fd).st_nlink == 0

    def times_ns(self) -> tuple[int, int]:
        """See Generation."""
        return _times_ns(self._fd)

    def close(self) -> None:
        """See Generation."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class GzipGeneration:
    """A generation the engine has compressed, inflated as it is read.

    Meant to be read forward: going back inflates from the start again. A damaged file ends at its last
    sound byte and says why in ``damage``.
    """

    def __init__(self, path: Path, user: int = 0) -> None:
        self.path = path
        self.damage = ""
        self._raw = os.fdopen(_open_file(path, user), "rb")
        self.inode = os.fstat(self._raw.fileno()).st_ino
        self._stream = gzip.GzipFile(fileobj=self._raw, mode="rb")
        self._start = 0  # offset of the first byte of the window
        self._window = bytearray()
        self._ended = False

    def read(self, offset: int, size: int) -> bytes:
        """See Generation."""
        if offset < self._start:
            self._stream.seek(0)
            self._start, self._ended = 0, False
            self._window.clear()
        while not self._ended and self._start + len(self._window) < offset + size:
            self._drop_before(offset)
            self._inflate()
        self._drop_before(offset)
        return bytes(self._window[:size]) if self._start == offset else b""

    def _drop_before(self, offset: int) -> None:
        gone = min(offset - self._start, len(self._window))
        del self._window[:gone]
        self._start += gone

    def _inflate(self) -> None:
        try:
            data = self._stream.read1(_INFLATE)
        except (EOFError, OSError, zlib.error) as error:
            self.damage = f"{type(error).__name__}: {error}"
            data = b""
        self._ended = not data
        self._window += data

    def size(self) -> int:
        """See Generation."""
        return self._start + len(self._window)

    def unlinked(self) -> bool:
        """See Generation."""
        return os.fstat(self._raw.fileno()).st_nlink == 0

    def times_ns(self) -> tuple[int, int]:
        """See Generation."""
        return _times_ns(self._raw.fileno())

    def close(self) -> None:
        """See Generation."""
        self._stream.close()
        self._raw.close()


def open_generations(
    path: Path, known: int | None = None, limit: int = 64, user: int = 0
) -> tuple[list[Generation], bool]:
    """Open the generations of the log at ``path``, oldest first; the current file is the last.

    With ``known`` (an inode) only the generations newer than that file are opened, and the second result
    says whether it was met; without it, it is false. Safe while the writer rotates: files only ever move
    to higher numbers and the walk goes up too, so a file may be met twice (and is opened once) but none is
    passed by. At most ``limit`` files are opened, the newest ones.

    Raises OSError for one that is there and cannot be opened, is no file, or is not the ``user``'s (0: anybody's).
    """
    opened: list[Generation] = []  # newest first
    inodes: set[int] = set()
    number = misses = 0
    while misses < 2 and len(opened) < limit:  # a rotation in progress leaves one hole in the numbers
        try:
            generation = _open_number(path, number, user)
        except OSError:
            for found in opened:
                found.close()
            raise
        number += 1
        if generation is None:
            misses += 1
            continue
        misses = 0
        if generation.inode == known:
            generation.close()
            return opened[::-1], True
        if generation.inode in inodes or (
            opened and opened[-1].unlinked() and same_start(opened[-1], generation)
        ):
            generation.close()
            continue
        inodes.add(generation.inode)
        opened.append(generation)
    return opened[::-1], False


def _open_file(path: Path, user: int) -> int:
    """Open without waiting for whoever writes, as a FIFO would.

    Raises OSError on what is no regular file, or not of ``user`` where that is not root: who names a path
    to us is to learn nothing from it that they could not read themselves.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if user not in (0, status.st_uid):
            raise PermissionError(
                errno.EPERM, f"a log of user {user}, but the file is user {status.st_uid}'s", str(path)
            )
    except OSError:
        os.close(fd)
        raise
    return fd


def _open_number(path: Path, number: int, user: int) -> Generation | None:
    plain = path if number == 0 else path.with_name(f"{path.name}.{number}")
    try:
        return PlainGeneration(plain, user)
    except FileNotFoundError:
        if number == 0:
            return None
    try:
        return GzipGeneration(plain.with_name(f"{plain.name}.gz"), user)
    except FileNotFoundError:
        return None


def same_start(one: Generation, other: Generation) -> bool:
    """Whether both begin with the same bytes (and some): a file and the gzip that was made of it."""
    head = one.read(0, _HEAD)
    return bool(head) and head == other.read(0, _HEAD)


def follows_at_once(gone: Generation, found: list[Generation]) -> bool:
    """Whether no generation can have come and gone between one that was removed and those found now.

    The rotation that removed it then made the newest of those found, and no other of them: told by the times of
    the files. False where they cannot tell.
    """
    removed_ns = gone.times_ns()[1] if gone.unlinked() else 0
    newest_ns = found[-1].times_ns()[0]
    if not removed_ns or not newest_ns or newest_ns > removed_ns + _AT_ONCE_NS:
        return False
    return len(found) < 2 or 0 < found[-2].times_ns()[0] < removed_ns


def _times_ns(fd: int) -> tuple[int, int]:
    """statx(2), since Python tells no time of birth here."""
    changed_ns = os.fstat(fd).st_ctime_ns
    buffer = ctypes.create_string_buffer(_STATX_SIZE)
    try:
        failed = _libc.statx(fd, b"", _AT_EMPTY_PATH, _STATX_BTIME, buffer)
    except AttributeError:  # a C library without it
        return 0, changed_ns
    mask, seconds, nanoseconds, *_ = _STATX_TIMES.unpack_from(buffer)
    known = not failed and mask & _STATX_BTIME
    return (seconds * 1_000_000_000 + nanoseconds if known else 0), changed_ns
