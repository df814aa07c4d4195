"""Capacity and use of the host's file systems on block devices, each device once: cAdvisor's view of them.

One that hangs holds nobody up (``probe.py``). All mounts are in ``groups/filesystem.py``.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from collector.host.probe import Probe
from collector.roots import Roots
from logdrivers.mountinfo import parse_mountinfo

__all__ = ["FileSystem", "mounted_devices", "read_filesystems"]

logger = logging.getLogger(__name__)

#: Remembers which do not answer.
_PROBE = Probe()


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
    for mount in parse_mountinfo(mountinfo):
        if (mount.source.startswith("/dev/") and mount.kind != "devtmpfs") or mount.kind == "zfs":
            mounts.setdefault(mount.source, mount.point)
    return mounts


def read_filesystems(roots: Roots, probe: Probe = _PROBE) -> tuple[FileSystem, ...]:
    """Every file system on a block device. One that cannot be asked is logged and left out."""
    mounts = mounted_devices((roots.proc / "self" / "mountinfo").read_bytes())
    paths = {device: str(roots.root / point.lstrip("/")) for device, point in mounts.items()}
    answers = probe.ask(list(paths.values()))
    found = []
    for device, point in mounts.items():
        stat = answers[paths[device]]
        if not isinstance(stat, os.statvfs_result):
            reason = stat or "it does not answer"
            logger.warning("cannot ask file system %s at %s for its size: %s", device, point, reason)
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
