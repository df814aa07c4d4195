"""Sizes and use of the host's mounted file systems, of those too that hang.

The choice of mount points and kinds is Node Exporter's default. Sources: fstab(5), statvfs(3).
"""

from __future__ import annotations

import os
import re
import select
import weakref
from typing import NamedTuple

from collector.host.group import Files, Labels, Reader, Readings
from collector.host.probe import Answer, Probe
from logdrivers.mountinfo import unescape

__all__ = ["Mount", "filesystem", "parse_mounts"]

_POINTS = re.compile(
    r"/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)"
)
_KINDS = re.compile(
    "autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660|mqueue|nsfs"
    "|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|erofs|sysfs|tracefs"
)
_SIZES = ("size_bytes", "free_bytes", "avail_bytes", "files", "files_free")


class Mount(NamedTuple):
    """One mounted file system."""

    device: str
    point: str
    kind: str
    read_only: bool


def parse_mounts(data: bytes) -> list[Mount]:
    """``/proc/PID/mounts`` without what is not to be counted, each device at a mount point once."""
    found: dict[tuple[str, str, str], Mount] = {}
    for line in data.decode(errors="replace").splitlines():
        device, point, kind, options, *_ = line.split(" ")
        point = unescape(point)
        if not _KINDS.fullmatch(kind) and not _POINTS.match(point):
            mount = Mount(unescape(device), point, kind, "ro" in options.split(","))
            found.setdefault(mount[:3], mount)
    return list(found.values())


def filesystem(files: Files, probe: Probe | None = None) -> Reader:
    """Node Exporter's ``filesystem``; one that hangs has ``node_filesystem_device_error`` 1 and no sizes."""
    asked = probe or Probe()
    table = _Table(files)

    def read() -> Readings:
        mounts = table.mounts()
        answers = asked.ask([files.root + mount.point for mount in mounts])
        readings: Readings = {f"node_filesystem_{name}": [] for name in (*_SIZES, "readonly", "device_error")}
        for mount in mounts:
            _add(readings, mount, answers[files.root + mount.point])
        return readings

    return read


class _Table:
    """The table of mounts, read anew when the kernel says that it changed: containers make it long."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._poll: select.poll | None = None
        self._known: list[Mount] | None = None

    def mounts(self) -> list[Mount]:
        """What is mounted now. Raises OSError."""
        if self._files.proc != "/proc":  # a copy of another host's, which tells of no change
            return parse_mounts(self._read())
        if self._poll is None:
            self._watch()
        if self._poll is None:
            return parse_mounts(self._read())
        # Asking is taking note: what changes from here on is told the next time.
        if self._poll.poll(0) or self._known is None:
            self._known = None
            self._known = parse_mounts(self._read())
        return self._known

    def _read(self) -> bytes:
        try:
            return self._files.read(f"{self._files.proc}/1/mounts")
        except OSError:  # hidepid
            return self._files.read(f"{self._files.proc}/self/mounts")

    def _watch(self) -> None:
        for process in ("1", "self"):
            try:
                fd = os.open(f"/proc/{process}/mounts", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue  # without a descriptor to spare it is read each time
            weakref.finalize(self, os.close, fd)
            self._poll = select.poll()
            self._poll.register(fd, select.POLLPRI)
            return


def _add(readings: Readings, mount: Mount, answer: Answer) -> None:
    labels: Labels = (mount.device, mount.point, mount.kind)
    failed = not isinstance(answer, os.statvfs_result)
    readings["node_filesystem_device_error"].append((labels, int(failed)))
    readings["node_filesystem_readonly"].append((labels, int(mount.read_only)))
    if isinstance(answer, os.statvfs_result):
        block = answer.f_frsize
        values = (
            answer.f_blocks * block,
            answer.f_bfree * block,
            answer.f_bavail * block,
            answer.f_files,
            answer.f_ffree,
        )
        for name, value in zip(_SIZES, values, strict=True):
            readings[f"node_filesystem_{name}"].append((labels, value))
