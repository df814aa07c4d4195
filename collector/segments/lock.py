"""One process owns a store: a lock on a file in its directory, which names the owner."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

__all__ = ["StoreLocked", "take_lock"]


class StoreLocked(OSError):
    """Another process has the store open."""


def take_lock(path: Path) -> int:
    """Lock the file until the descriptor returned is closed. Raises StoreLocked, OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(fd, 32, 0).decode(errors="replace").strip()
        os.close(fd)
        raise StoreLocked(
            errno.EWOULDBLOCK, f"the store is in use by process {owner or '(unknown)'}", str(path.parent)
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd
