"""Where a container's files are, whichever engine made it: from its own mount table.

Sources of the formats: the kernel's Documentation/filesystems/overlayfs.rst; the places
of volumes are Docker's, podman's and our engine's (``volumes/NAME/_data``) and the kubelet's.
"""

from __future__ import annotations

import re

from logdrivers.mountinfo import Mount, unescape

__all__ = ["source_of", "upper_directory", "volumes"]

#: A mount whose server is gone would hold the walker, and with it every other container.
_ELSEWHERE = re.compile(r"nfs4?|cifs|smb3?|9p|ceph|glusterfs|lustre|afs|fuse(\..*)?|tmpfs|ramfs")
_VOLUME = re.compile(r"/volumes/(?:([^/]+)/_data|kubernetes\.io~[^/]+/([^/]+))$")


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
