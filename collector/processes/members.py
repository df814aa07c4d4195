"""Which processes are a container's: ``cgroup.procs`` of its cgroup and of those below it.

The kernel's own list, so that processes entered from outside count and processes that moved away do not.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from collector.cgroup.layout import UNIFIED, Layout
from collector.container import Container
from collector.discovery.registry import RUNNING, Containers
from collector.sampler import HOST
from collector.target import cgroup_paths

__all__ = ["Members", "NotRunning"]

log = logging.getLogger(__name__)

#: Hierarchies in the order they are asked: any knows the members, some engines leave some of them out.
_HIERARCHIES = ("pids", "memory", "cpu", "cpuacct", UNIFIED, "name=systemd")

#: Errors for which a cgroup has no processes to tell: it went, or its path is longer than paths may be.
_NOTHING = frozenset({errno.ENODEV, errno.ENOENT, errno.EOPNOTSUPP, errno.ENAMETOOLONG})


class NotRunning(Exception):
    """A container without processes; says its state."""


class Members:
    """Finds the processes of the containers of one host."""

    def __init__(self, containers: Containers, layout: Layout, proc: Path) -> None:
        self._containers = containers
        self._layout = layout
        self._proc = proc

    def pids(self, container: Container) -> list[int]:
        """The container's processes. Raises NotRunning for one that has none."""
        if container.state not in RUNNING:
            raise NotRunning(f"container {container.name} is {container.state}: it has no processes")
        try:
            found = self._layout.directories(cgroup_paths(self._layout, container))
        except OSError as error:
            raise NotRunning(f"container {container.name} has ended: {error}") from error
        for hierarchy in _HIERARCHIES:
            if hierarchy in found:
                return _below(found[hierarchy])
        raise NotRunning(f"container {container.name} has no cgroup any more")

    def still(self, container: Container, pids: Iterable[int]) -> set[int]:
        """Which of these processes are the container's now, after something was read of them.

        A number read from a list may be another's a moment later; what was read between two lists that
        both have it was the container's.
        """
        try:
            return set(self.pids(container)).intersection(pids)
        except NotRunning:
            return set()

    def host_pids(self) -> list[int]:
        """Every process of the host, containers' and kernel threads included."""
        with os.scandir(self._proc) as entries:
            return [int(entry.name) for entry in entries if entry.name.isdigit()]

    def owners(self) -> dict[int, Container]:
        """The container of every process that has one (of two nested ones, the inner)."""
        owners: dict[int, Container] = {}
        sizes: dict[int, int] = {}
        for container in self._containers.all():
            if container.state not in RUNNING or container.id == HOST:
                continue
            try:
                pids = self.pids(container)
            except NotRunning as error:
                log.debug("no owner for the processes of %s: %s", container.name, error)
                continue
            for pid in pids:
                if pid not in owners or len(pids) < sizes[pid]:
                    owners[pid], sizes[pid] = container, len(pids)
        return owners


def _below(directory: Path) -> list[int]:
    """The processes of a cgroup and all below it, however deep; a cgroup that goes meanwhile has none."""
    pids: list[int] = []
    places = [os.fspath(directory)]
    for place in places:
        try:
            with os.scandir(place) as entries:
                places += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
            pids += map(int, Path(place, "cgroup.procs").read_bytes().split())
        except OSError as error:
            # EOPNOTSUPP: a threaded cgroup of v2, whose processes the domain above it lists.
            if error.errno not in _NOTHING:
                raise
    return list(dict.fromkeys(pid for pid in pids if pid > 0))
