"""The mount system calls that Python lacks, and reading the mount table.

Errors carry the operation and the path; what to mount where is left to the callers.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from logdrivers.mountinfo import parse_mountinfo

__all__ = [
    "MNT_DETACH",
    "MS_BIND",
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "MS_PRIVATE",
    "MS_RDONLY",
    "MS_REC",
    "MS_REMOUNT",
    "mount",
    "mount_points",
    "unmount",
]

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str | Path, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Call mount(2). Raises OSError whose text names source, target and type."""
    if _libc.mount(
        source.encode(),
        os.fsencode(target),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    ):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {kind or 'bind'} {source} on {target}: {os.strerror(number)}")


def unmount(target: str | Path, flags: int = MNT_DETACH) -> bool:
    """Take off the topmost mount at ``target``; False if there is none (or no such path)."""
    if _libc.umount2(os.fsencode(target), flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOENT):
        return False
    raise OSError(number, f"unmount {target}: {os.strerror(number)}")


def mount_points(below: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> list[Path]:
    """Mount points at or below a directory, deepest first."""
    own = os.fspath(below)
    points = [mount.point for mount in parse_mountinfo(mountinfo.read_bytes())]
    found = [Path(point) for point in points if point == own or point.startswith(f"{own}/")]
    return sorted(found, key=lambda path: len(path.parts), reverse=True)
