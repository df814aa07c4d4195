"""Opening a path inside a root directory that others control: links and ``..`` end at the root, as in chroot.

One call, openat2(2) with RESOLVE_IN_ROOT (Linux 5.6), shared by archives, passwd look-ups and mount sources.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

__all__ = ["open_in_root", "read_in_root"]

_SYS_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_in_root(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open ``path`` as a process chrooted to ``root_fd`` would see it. Raises OSError with the path."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    name = os.fsencode(path or ".")
    fd = int(_libc.syscall(_SYS_OPENAT2, root_fd, name, ctypes.byref(how), ctypes.sizeof(how)))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return fd


def read_in_root(root: Path, path: str, limit: int) -> bytes:
    """The content of a small regular file below ``root``; ValueError if it has more than ``limit`` bytes."""
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # O_NONBLOCK: a FIFO in the file's place must not hang us
        with open(open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            data = file.read(limit + 1)
    finally:
        os.close(root_fd)
    if len(data) > limit:
        raise ValueError(f"{path}: larger than {limit} bytes")
    return data
