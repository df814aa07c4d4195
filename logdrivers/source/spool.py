"""Where bytes are between a pipe and a journal, so that kill -9 neither loses nor doubles one.

A spool is a sparse file whose offsets are the stream's offsets: ``splice`` moves bytes out of the pipe and to
the end of the file in one system call, so the file's size always says exactly what has left the pipe. What
the journal holds is punched out again. Who reads which pipe, and what the bytes mean, is the caller's business.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from pathlib import Path

__all__ = ["Spool", "set_pipe_size"]

_PAGE = 4096
_RELEASE_STRIDE = 1 << 20
_F_SETPIPE_SZ = 1031
_FALLOC_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class Spool:
    """The bytes of one stream from ``base`` on. ``end`` is how many have left the pipe so far."""

    def __init__(self, path: Path, base: int) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.end = os.fstat(self._fd).st_size
        if self.end < base:
            os.ftruncate(self._fd, base)
            self.end = base
        self._released = 0

    def fill(self, pipe_fd: int, limit: int) -> int | None:
        """Move up to ``limit`` bytes out of the pipe: how many, 0 at end of file, None if it is empty.

        Raises OSError (no space) with what was not moved still in the pipe.
        """
        try:
            moved = os.splice(pipe_fd, self._fd, limit, offset_dst=self.end, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return None
        self.end += moved
        return moved

    def append(self, data: bytes) -> None:
        """Add bytes that are not from the pipe. Raises OSError with none of them in."""
        try:
            written = os.pwrite(self._fd, data, self.end)
            if written != len(data):
                raise OSError(errno.ENOSPC, "the spool took a part")
        except OSError:
            os.ftruncate(self._fd, self.end)
            raise
        self.end += written

    def cut(self, end: int) -> None:
        """Forget what lies behind ``end``."""
        if end < self.end:
            os.ftruncate(self._fd, end)
            self.end = end

    def read(self, begin: int, end: int) -> bytes:
        """The bytes ``[begin, end)``, which must have left the pipe and not be released."""
        data = os.pread(self._fd, end - begin, begin)
        if len(data) != end - begin:
            raise OSError(f"spool holds {len(data)} of the {end - begin} bytes at {begin}")
        return data

    def release(self, upto: int, *, all_pages: bool = False) -> None:
        """Give back pages before ``upto``, a stride at a time unless ``all_pages``.

        The byte before ``upto`` is kept: it tells whether a line was open there.
        """
        stop = (upto - 1) & ~(_PAGE - 1)
        if stop - self._released >= (_PAGE if all_pages else _RELEASE_STRIDE):
            _punch_hole(self._fd, self._released, stop - self._released)
            self._released = stop

    def close(self) -> None:
        """Close the file; it stays for a successor."""
        os.close(self._fd)


def _punch_hole(fd: int, start: int, length: int) -> None:
    """Give the pages of ``[start, start + length)`` back without changing the file's size."""
    if _libc.fallocate(fd, _FALLOC_PUNCH_HOLE_KEEP_SIZE, start, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"punch a hole of {length} bytes at {start}: {os.strerror(number)}")


def set_pipe_size(fd: int, size: int) -> int:
    """Ask for a pipe of ``size`` bytes, halving until the kernel agrees; returns the size it has."""
    while size > 65536:
        try:
            return fcntl.fcntl(fd, _F_SETPIPE_SZ, size)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EBUSY, errno.ENOMEM):
                raise
            size //= 2
    return 65536
