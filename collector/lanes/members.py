"""Which processes and threads a container has: from its cgroup and the cgroups below."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from collector.cgroup.files import read_whole
from collector.cgroup.layout import UNIFIED
from collector.target import Target

__all__ = ["below", "directory_of", "processes", "threads"]


def directory_of(target: Target, *controllers: str) -> Path | None:
    """The container's directory in the first of these hierarchies it is in (``UNIFIED`` for v2)."""
    found = target.cgroup.directories
    return next((found[controller] for controller in controllers if controller in found), None)


def processes(target: Target) -> list[int]:
    """Process ids in the host's namespace. Raises OSError when the cgroup is gone."""
    directory = _home(target)
    return [] if directory is None else _members(directory, "cgroup.procs")


def threads(target: Target) -> list[int]:
    """Thread ids in the host's namespace. Raises OSError when the cgroup is gone."""
    directory = _home(target)
    if directory is None:
        return []
    unified = target.cgroup.directories.get(UNIFIED)
    return _members(directory, "cgroup.threads" if directory == unified else "tasks")


def _home(target: Target) -> Path | None:
    """Any hierarchy will do, as long as it is the container's own."""
    directory = directory_of(target, "pids", "cpuacct", "memory", "cpu", UNIFIED)
    return directory or next(iter(target.cgroup.directories.values()), None)


def below(directory: Path) -> list[Path]:
    """A cgroup and all cgroups in it. Raises OSError when it is gone."""
    found = [directory]
    for place in found:
        try:
            # A directory has a link from itself, its parent, and each of the directories in it.
            if place.stat().st_nlink > 2:
                with os.scandir(place) as entries:
                    found += [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            if place == directory or error.errno not in (errno.ENOENT, errno.ENODEV):
                raise
    return found


def _members(directory: Path, name: str) -> list[int]:
    members: list[int] = []
    for place in below(directory):
        try:
            members += map(int, read_whole(place, name).split())
        except OSError as error:
            # A child that went; a threaded cgroup does not list processes, its parent does.
            if place == directory or error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
                raise
    return members
