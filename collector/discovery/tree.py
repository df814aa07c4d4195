"""The cgroup directories of one hierarchy, kept up to date by the kernel's events.

One watch a directory, at most so many and so deep. The kernel keeps the watch of a removed cgroup until it
is told to let go, so every removal is answered; when it drops events, the tree is read again and compared.
Where the host allows no watch at all, only ``scan`` tells. What the directories mean is left to whoever asks.
"""

from __future__ import annotations

import enum
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from logdrivers.inotify import (
    CREATE,
    DELETE,
    IS_DIRECTORY,
    MODIFY,
    MOVED_FROM,
    MOVED_TO,
    OVERFLOW,
    Watch,
)

__all__ = ["CgroupTree", "Happening", "What"]

logger = logging.getLogger(__name__)

_MASK = MODIFY | MOVED_FROM | MOVED_TO | CREATE | DELETE
#: Files whose writing says that processes came or went: v1 tells of writes only, v2 of the last one's end too.
_PROCESS_FILES = frozenset({"cgroup.procs", "cgroup.events", "tasks"})


class What(enum.Enum):
    """What happened to a cgroup."""

    MADE = enum.auto()
    GONE = enum.auto()
    PROCESSES = enum.auto()  #: a process was put into it, or (v2) the last one ended


class Happening(NamedTuple):
    """One thing that happened."""

    what: What
    path: str  #: below the hierarchy's mount point, ``/docker/<id>``


class CgroupTree:
    """All cgroups below a directory but itself. Not thread-safe."""

    def __init__(self, root: Path, max_depth: int = 10, max_watches: int = 8192) -> None:
        """Raises OSError when there is no such directory."""
        self.rescans = 0  #: times the tree was read anew because events were lost
        self.events = 0
        self.unwatched = 0  #: directories known whose inside is not watched (too many, too deep)
        self._root = os.fspath(root).rstrip("/")
        self._max_depth = max_depth
        self._max_watches = max_watches
        self._inotify: Watch | None = None
        self._watches: dict[str, int] = {}  # path to watch, -1 where there is none
        self._paths: dict[int, str] = {}
        self._told = False
        if not Path(self._root).is_dir():
            raise FileNotFoundError(errno.ENOENT, "no directory of cgroups", self._root)
        self._watch_root()

    def __len__(self) -> int:
        return len(self._watches)

    def __contains__(self, path: str) -> bool:
        return path in self._watches

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._watches))

    @property
    def watches(self) -> int:
        """Watches held."""
        return len(self._paths)

    @property
    def told(self) -> bool:
        """Whether the kernel tells of anything; else ``scan`` is the only way, and tries to have it tell."""
        return self._inotify is not None

    def fileno(self) -> int:
        """Readable when ``read`` has something to say; -1 where nothing is told."""
        return -1 if self._inotify is None else self._inotify.fileno()

    def scan(self) -> list[Happening]:
        """Compare with what is there now: everything, the first time."""
        found: list[Happening] = []
        if self._inotify is None:
            self._watch_root()
        for path in [path for path in self._watches if not Path(self._root + path).is_dir()]:
            self._removed(path, found)
        for path in ("", *tuple(self._watches)):
            if self._watches.get(path) == -1:
                self._watch_now(path)
            if path.count("/") <= self._max_depth:
                self._children(path, found)
        return found

    def read(self) -> list[Happening]:
        """What happened since the last call, in order; never waits."""
        found: list[Happening] = []
        changes = self._inotify.read() if self._inotify is not None else []
        self.events += len(changes)
        lost = False
        for watch, mask, name in changes:
            if mask & OVERFLOW:
                lost = True
                continue
            parent = self._paths.get(watch)
            if parent is None:
                continue
            if not mask & IS_DIRECTORY:
                if name in _PROCESS_FILES and parent:
                    found.append(Happening(What.PROCESSES, parent))
                continue
            path = f"{parent}/{name}"
            if mask & (CREATE | MOVED_TO):
                self._made(path, found)
            elif mask & (DELETE | MOVED_FROM):
                self._removed(path, found)
        if lost:
            self.rescans += 1
            logger.info("the kernel dropped events of %s, reading it anew", self._root)
            found += self.scan()
        return found

    def close(self) -> None:
        """End all watches."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        self._watches.clear()
        self._paths.clear()

    def _watch_root(self) -> None:
        inotify = None
        try:
            inotify = Watch()
            self._paths[inotify.add(self._root, _MASK, directory=True)] = ""
        except OSError as error:
            if inotify is not None:
                inotify.close()
            if not self._told:
                self._told = True
                logger.warning("looking at the cgroups from time to time instead: %s", error)
            return
        self._inotify, self._told = inotify, False

    def _made(self, path: str, found: list[Happening]) -> None:
        """Take a directory and what is in it; the watch first, so that nothing falls between."""
        if path in self._watches:
            return
        try:
            watch = self._watch(path)
        except FileNotFoundError:
            return  # it is gone again
        self._keep(path, watch)
        found.append(Happening(What.MADE, path))
        if watch < 0:
            self.unwatched += 1
        if path.count("/") <= self._max_depth:
            self._children(path, found)

    def _watch(self, path: str) -> int:
        """The number of a new watch, or -1 where there is to be none. Raises FileNotFoundError."""
        if (
            self._inotify is None
            or path.count("/") > self._max_depth
            or len(self._paths) >= self._max_watches
        ):
            return -1
        try:
            return self._inotify.add(self._root + path, _MASK, directory=True)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise FileNotFoundError(error.errno, "cgroup removed", path) from error
            if not self._told:
                self._told = True
                logger.warning("some cgroups are not watched: %s", error)
            return -1

    def _watch_now(self, path: str) -> None:
        """Watch what there was no room for before, if there is now."""
        try:
            watch = self._watch(path)
        except FileNotFoundError:
            return  # the next look sees that
        if watch >= 0:
            self.unwatched -= 1
            self._keep(path, watch)

    def _keep(self, path: str, watch: int) -> None:
        self._watches[path] = watch
        if watch >= 0:
            self._paths[watch] = path

    def _children(self, path: str, found: list[Happening]) -> None:
        try:
            with os.scandir(self._root + (path or "/")) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV, errno.ENOTDIR):
                logger.warning("cannot list cgroups: %s", error)
            return
        for name in sorted(names):  # the same order at every start
            self._made(f"{path}/{name}", found)

    def _removed(self, path: str, found: list[Happening]) -> None:
        watch = self._watches.pop(path, None)
        if watch is None:
            return
        if watch >= 0 and self._inotify is not None:
            self._paths.pop(watch, None)
            self._inotify.remove(watch)
        else:
            self.unwatched -= 1
        found.append(Happening(What.GONE, path))
