"""Where a container's files are, whichever engine made it: from its own mount table.

Sources of the formats: proc_pid_mountinfo(5), the kernel's Documentation/filesystems/overlayfs.rst; the places
of volumes are Docker's, podman's and our engine's (``volumes/NAME/_data``) and the kubelet's.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from collector.cgroup.layout import unescape

__all__ = ["Mount", "parse_mountinfo", "source_of", "upper_directory", "volumes"]

#: A mount whose server is gone would hold the walker, and with it every other container.
_ELSEWHERE = re.compile(r"nfs4?|cifs|smb3?|9p|ceph|glusterfs|lustre|afs|fuse(\..*)?|tmpfs|ramfs")
_VOLUME = re.compile(r"/volumes/(?:([^/]+)/_data|kubernetes\.io~[^/]+/([^/]+))$")


class Mount(NamedTuple):
    """A line of mountinfo."""

    device: str  #: ``major:minor``
    root: str  #: what of the file system is mounted
    point: str
    kind: str
    source: str
    options: str  #: of the file system, with escapes as they are


def parse_mountinfo(data: bytes) -> list[Mount]:
    """``/proc/PID/mountinfo``, in order of mounting."""
    mounts = []
    for line in data.decode(errors="surrogateescape").splitlines():
        before, dash, after = line.partition(" - ")
        words = before.split(" ")
        if dash and len(words) >= 6:
            kind, source, options = (*after.split(" ", 2), "")[:3]
            mounts.append(
                Mount(words[2], unescape(words[3]), unescape(words[4]), kind, unescape(source), options)
            )
    return mounts


def upper_directory(mounts: list[Mount]) -> str:
    """The host's path of what is written over the image; "" where the root is no overlay with such a path."""
    for mount in reversed(mounts):
        if mount.point == "/":
            if mount.kind not in ("overlay", "fuse.fuse-overlayfs"):
                return ""
            for option in mount.options.split(","):  # a comma in a path is an escape
                key, _, value = option.partition("=")
                if key == "upperdir" and value.startswith("/"):
                    return unescape(value)
            return ""
    return ""


def volumes(mounts: list[Mount]) -> dict[str, str]:
    """Names of the container's volumes and where they are mounted in it, each once.

    Those of other hosts and those in memory are left out.
    """
    found: dict[str, str] = {}
    for mount in mounts:
        matched = _VOLUME.search(mount.root)
        if matched and not _ELSEWHERE.fullmatch(mount.kind):
            found.setdefault(matched[1] or matched[2], mount.point)
    return found


def source_of(path: str, mounts: list[Mount]) -> str:
    """What the file system of a path is mounted from, ``/dev/vda1``: cAdvisor's label ``device``."""
    best, source = -1, ""
    for mount in mounts:
        point = mount.point.rstrip("/")
        if len(point) >= best and (path == point or path.startswith(f"{point}/")):
            best, source = len(point), mount.source
    return source
