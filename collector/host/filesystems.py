"""Capacity and use of the host's mounted file systems, by ``statvfs``.

Only file systems on block devices are asked, and each device once: a hung network mount must not hang
the caller. Call it from a slow lane all the same.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from collector.cgroup.layout import unescape
from collector.roots import Roots

__all__ = ["FileSystem", "mounted_devices", "read_filesystems"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FileSystem:
    """One file system."""

    device: str  #: ``/dev/vda1``
    mount_point: str
    capacity_bytes: int
    used_bytes: int
    inodes: int
    inodes_free: int


def mounted_devices(mountinfo: bytes) -> dict[str, str]:
    """Device to its first mount point, for sources below ``/dev`` and pools of ZFS."""
    mounts: dict[str, str] = {}
    for line in mountinfo.decode(errors="surrogateescape").splitlines():
        before, dash, after = line.partition(" - ")
        if not dash:
            continue
        kind, source, _options = after.split(" ", 2)
        if (source.startswith("/dev/") and kind != "devtmpfs") or kind == "zfs":
            mounts.setdefault(source, unescape(before.split(" ")[4]))
    return mounts


def read_filesystems(roots: Roots) -> tuple[FileSystem, ...]:
    """Every file system on a block device. One that cannot be asked is logged and left out."""
    found = []
    for device, point in mounted_devices((roots.proc / "self" / "mountinfo").read_bytes()).items():
        try:
            stat = os.statvfs(roots.root / point.lstrip("/"))
        except OSError as error:
            logger.warning("cannot ask file system %s at %s for its size: %s", device, point, error)
            continue
        found.append(
            FileSystem(
                device,
                point,
                stat.f_blocks * stat.f_frsize,
                (stat.f_blocks - stat.f_bfree) * stat.f_frsize,
                stat.f_files,
                stat.f_ffree,
            )
        )
    return tuple(found)
