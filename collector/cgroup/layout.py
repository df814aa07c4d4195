"""Finds a container's cgroup directories, whatever mixture of v1 and v2 the host has mounted.

The truth is ``/proc/PID/cgroup`` (which cgroup a process is in, per hierarchy) and mountinfo (where each
hierarchy is mounted): systemd slices, ``--cgroup-parent``, podman and Kubernetes all move the path, so
nothing here assumes ``/docker/<id>``. What the files in a directory say is left to ``v1/`` and ``v2/``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from collector.roots import Roots
from logdrivers import mountinfo

__all__ = [
    "UNIFIED",
    "Layout",
    "Mode",
    "Mount",
    "container_paths",
    "parse_cgroup",
    "parse_mountinfo",
]

#: The key of the v2 hierarchy where controllers are keys; ``/proc/PID/cgroup`` names it the same.
UNIFIED = ""


class Mode(enum.StrEnum):
    """What a host has mounted."""

    V1 = "v1"
    HYBRID = "hybrid"  #: controllers on v1, a v2 tree without controllers beside them
    V2 = "v2"


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted cgroup hierarchy."""

    controllers: tuple[str, ...]  #: ``("cpu", "cpuacct")``, ``("name=systemd",)``, ``(UNIFIED,)`` for v2
    point: str  #: where it is mounted
    root: str  #: which of the hierarchy's cgroups is mounted there, ``/`` outside cgroup namespaces


def parse_mountinfo(data: bytes) -> tuple[Mount, ...]:
    """The cgroup hierarchies in a mountinfo file; other mounts are passed over."""
    hierarchies = []
    for mount in mountinfo.parse_mountinfo(data):
        if mount.kind == "cgroup2":
            controllers: tuple[str, ...] = (UNIFIED,)
        elif mount.kind == "cgroup":
            skip = ("rw", "ro", "xattr", "clone_children", "noprefix", "cpuset_v2_mode")
            options = mount.options.split(",")
            controllers = tuple(o for o in options if o not in skip and "release_agent" not in o)
        else:
            continue
        hierarchies.append(Mount(controllers, mount.point, mount.root))
    return tuple(hierarchies)


def parse_cgroup(data: bytes) -> dict[str, str]:
    """``/proc/PID/cgroup`` as controller to path; the v2 hierarchy's key is ``UNIFIED``."""
    paths = {}
    for line in data.decode(errors="surrogateescape").split("\n"):  # other separators of lines stand in names
        if not line:
            continue
        number, colon, rest = line.partition(":")
        controllers, colon2, path = rest.partition(":")
        if not (colon and colon2 and number.isdigit()):
            raise ValueError(f"cgroup line {line!r}: expected 'number:controllers:path'")
        for controller in controllers.split(","):
            paths[controller] = path.removesuffix(" (deleted)")
    return paths


def container_paths(paths: Mapping[str, str], container_id: str) -> dict[str, str]:
    """The hierarchies in which a container has a cgroup of its own, from one of its processes' paths.

    A path is cut behind the component that names the container, for an init system inside moves itself
    deeper (``…/docker-<id>.scope/init.scope``). Hierarchies where the process sits in a cgroup that does
    not name the container are left out: their counters are somebody else's. When no path names it, every
    path but the root is taken as it is.
    """
    cut = {}
    for controller, path in paths.items():
        head, found, tail = path.partition(container_id)
        if found:
            cut[controller] = head + found + tail.partition("/")[0]
    return cut or {controller: path for controller, path in paths.items() if path != "/"}


class Layout:
    """The mounted hierarchies of one host."""

    def __init__(self, mounts: Iterable[Mount], roots: Roots) -> None:
        self._roots = roots
        self._mounts: dict[str, Mount] = {}
        for mount in mounts:
            for controller in mount.controllers:
                known = self._mounts.get(controller)
                # A bind mount of a part of the tree must not hide the whole of it.
                if known is None or len(mount.root) < len(known.root):
                    self._mounts[controller] = mount

    @classmethod
    def read(cls, roots: Roots) -> Layout:
        """Read mountinfo. Raises OSError when procfs is not there, ValueError when no cgroup is mounted."""
        path = roots.proc / "self" / "mountinfo"
        layout = cls(parse_mountinfo(path.read_bytes()), roots)
        if not layout._mounts:
            raise ValueError(f"{path}: expected at least one mounted cgroup hierarchy, found none")
        return layout

    @property
    def mode(self) -> Mode:
        """Which kind of host this is."""
        if UNIFIED not in self._mounts:
            return Mode.V1
        return Mode.HYBRID if {"cpu", "memory", "pids"} & self._mounts.keys() else Mode.V2

    def directory(self, controller: str, path: str) -> Path | None:
        """The directory of a cgroup in a controller's hierarchy, or None where it is not mounted."""
        mount = self._mounts.get(controller)
        if mount is None:
            return None
        if mount.root != "/":
            if path != mount.root and not path.startswith(mount.root + "/"):
                return None
            path = path[len(mount.root) :]
        return self._rooted(mount.point) / path.lstrip("/")

    def top(self, controller: str) -> str:
        """Path of the topmost cgroup to be seen in a hierarchy: ``/`` unless only a part is mounted."""
        mount = self._mounts.get(controller)
        return mount.root if mount else "/"

    def directories(self, paths: Mapping[str, str]) -> dict[str, Path]:
        """``directory`` of every controller in ``paths`` that is mounted and whose directory exists."""
        found = {}
        for controller, path in paths.items():
            directory = self.directory(controller, path)
            if directory is not None and directory.is_dir():
                found[controller] = directory
        return found

    def everywhere(self, path: str) -> dict[str, str]:
        """The same path in every mounted hierarchy: for the root, and for cgroups without a process."""
        return dict.fromkeys(self._mounts, path)

    def process_paths(self, pid: int, container_id: str) -> dict[str, str]:
        """``container_paths`` of a running process. Raises OSError when it is gone."""
        data = (self._roots.proc / str(pid) / "cgroup").read_bytes()
        return container_paths(parse_cgroup(data), container_id)

    def _rooted(self, point: str) -> Path:
        if point == "/sys" or point.startswith("/sys/"):
            return self._roots.sys / point[5:]
        return self._roots.root / point.lstrip("/")
