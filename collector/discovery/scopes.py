"""What a cgroup's path says: which engine's container it is, which pod's, or which service's.

Pure functions over paths as they are below a hierarchy's root. The layouts are those of Docker, podman,
containerd and CRI-O with either cgroup driver (cgroupfs: plain directories, systemd: slices and scopes), of
the kubelet's QoS levels, and of systemd's units. Names and images are not in a path (``facts.py``).
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final

__all__ = ["Kind", "Scope", "scope_of"]


class Kind(enum.StrEnum):
    """What sort of thing a cgroup holds."""

    CONTAINER = "container"
    POD = "pod"
    SERVICE = "service"
    SLICE = "slice"
    CGROUP = "cgroup"  #: anything else


@dataclass(frozen=True, slots=True)
class Scope:
    """One cgroup by its path."""

    path: str
    kind: Kind
    engine: str = (
        ""  #: ``docker``, ``podman``, ``containerd``, ``cri-o``, ``taffrail``; "" where the path does not say
    )
    id: str = ""  #: the container's 64 hexadecimal digits; "" unless it is one
    pod_uid: str = ""  #: with dashes, of the Kubernetes pod it belongs to


_HEX: Final = r"(?P<id>[0-9a-f]{64})"
#: The last component of a container's cgroup, and whose it is.
_CONTAINERS: Final = tuple(
    (re.compile(pattern), engine)
    for pattern, engine in (
        (rf"docker-{_HEX}\.scope", "docker"),
        (rf"libpod-(?:payload-)?{_HEX}(?:\.scope)?", "podman"),
        (rf"cri-containerd-{_HEX}\.scope", "containerd"),
        (rf"nerdctl-{_HEX}\.scope", "containerd"),
        (rf"crio-{_HEX}(?:\.scope)?", "cri-o"),
        # What runc makes of systemd's form when it was told to manage the directories itself.
        (rf"[^:]*:docker:{_HEX}", "docker"),
        (rf"[^:]*:libpod:{_HEX}", "podman"),
        (rf"[^:]*:crio:{_HEX}", "cri-o"),
        (rf"[^:]*:(?:cri-containerd|nerdctl):{_HEX}", "containerd"),
        (rf"taffrail-{_HEX}\.scope", "taffrail"),
        (_HEX, ""),
    )
)
_ENGINE_PARENTS: Final = {
    "docker": "docker",
    "taffrail": "taffrail",
    "libpod_parent": "podman",
    "nerdctl": "containerd",
}
#: ``pod<uid>`` of the cgroupfs driver, ``kubepods-burstable-pod<uid with underscores>.slice`` of systemd's.
_POD: Final = re.compile(
    r"(?:pod|kubepods(?:-burstable|-besteffort)?-pod)"
    r"(?P<uid>[0-9a-f]{8}[-_]?[0-9a-f]{4}[-_]?[0-9a-f]{4}[-_]?[0-9a-f]{4}[-_]?[0-9a-f]{12})(?:\.slice)?(?![0-9a-f])"
)


def scope_of(path: str) -> Scope:
    """What is at a cgroup path (``/docker/<id>``); never fails, a path not known is a plain cgroup."""
    components = path.strip("/").split("/")
    last = components[-1]
    uid = _pod_uid(components)
    for pattern, engine in _CONTAINERS:
        match = pattern.fullmatch(last)
        if match:
            if not engine:
                engine = _parents_engine(components[:-1])
            return Scope(path, Kind.CONTAINER, engine, match["id"], uid)
    if uid and _POD.fullmatch(last):
        return Scope(path, Kind.POD, pod_uid=uid)
    if last.endswith(".service"):
        return Scope(path, Kind.SERVICE)
    if last.endswith(".slice"):
        return Scope(path, Kind.SLICE)
    return Scope(path, Kind.CGROUP, pod_uid=uid)


def _parents_engine(parents: list[str]) -> str:
    for component in reversed(parents):
        if component in _ENGINE_PARENTS:
            return _ENGINE_PARENTS[component]
    return ""


def _pod_uid(components: list[str]) -> str:
    """The uid of the pod a path lies in, in the form Kubernetes writes it, or ""."""
    if not any("kubepods" in component for component in components):
        return ""
    for component in reversed(components):
        match = _POD.match(component)
        if match:
            # Static pods of the kubelet's own have a hash without dashes, which stays as it is.
            return match["uid"].replace("_", "-")
    return ""
