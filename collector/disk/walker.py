"""Adds up what files take on disk, slowly: within a share of a core, its I/O after everybody else's.

A tree that belongs to a container is its owner's to change at any moment: directories are opened one below
the other without following a link, what vanishes is left out, and other file systems are not entered.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import platform
import stat
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

__all__ = ["Stopped", "Usage", "Walker"]

logger = logging.getLogger(__name__)

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
#: Errors of an entry that went, or became another kind of thing, while it was looked at.
_VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
_DEEPEST = 512  #: directories open at a time
_MOST_LINKED = 100_000  #: files with several names that are remembered in one walk
_ENTRIES = 256  #: between two looks at the clock

_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_WHO_THREAD, _CLASS_IDLE = 1, 3 << 13


class Stopped(ProcessLookupError):
    """The walk was ended from outside; nothing is known then."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.ESRCH, "the walk was stopped", path)


class Usage(NamedTuple):
    """What a tree takes."""

    size_bytes: int  #: on disk, by blocks of 512 bytes, each file once
    inodes: int  #: files and directories, each once, the topmost included
    skipped: int  #: entries that could not be looked at, not those that vanished


class Walker:
    """Walks in the calling thread, whose I/O priority it makes idle."""

    def __init__(
        self,
        share: float = 0.05,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        """``share`` of a core is used at most while walking; ``stop`` ends a walk soon."""
        self.stop = stop or threading.Event()
        self.share = share
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._idle = threading.local()
        self._rested = (0.0, 0.0)

    def usage(self, path: str) -> Usage:
        """The directory at ``path`` and everything below. Raises OSError when it cannot be opened, Stopped."""
        self._be_idle()
        self._rested = (self._clock(), self._cpu_clock())
        walk = _Walk(lambda: self._rest(path))
        walk.all(os.open(path, _OPEN))
        return Usage(walk.blocks * 512, walk.inodes, walk.skipped)

    def _rest(self, path: str) -> None:
        """Sleep until the CPU time used is within the share again. Raises Stopped."""
        wall, cpu = self._rested
        due = (self._cpu_clock() - cpu) / self.share - (self._clock() - wall)
        if due > 0.01:
            self.stop.wait(due)
            self._rested = (self._clock(), self._cpu_clock())
        if self.stop.is_set():
            raise Stopped(path)

    def _be_idle(self) -> None:
        """Let everybody else's I/O go first, from now on and for this thread."""
        if getattr(self._idle, "set", False):
            return
        self._idle.set = True
        number = _IOPRIO_SET.get(platform.machine())
        libc = ctypes.CDLL(None, use_errno=True)
        if number is None or libc.syscall(number, _WHO_THREAD, 0, _CLASS_IDLE) < 0:
            reason = os.strerror(ctypes.get_errno()) if number else f"not known on {platform.machine()}"
            logger.warning("cannot make the disk walker's I/O priority idle: %s", reason)


class _Walk:
    """One walk: its sums so far, and the directories that are open."""

    def __init__(self, rest: Callable[[], None]) -> None:
        self.blocks = 0
        self.inodes = 0
        self.skipped = 0
        self._rest = rest
        self._device = -1
        self._linked: set[int] = set()
        self._entries = 0

    def all(self, root: int) -> None:
        """Depth first. Takes the descriptor over. Raises what ``rest`` raises."""
        open_: list[tuple[int, Iterator[str]]] = [(root, iter(()))]
        try:
            found = os.fstat(root)
            self._device = found.st_dev
            self._count(found)
            open_[-1] = (root, iter(self._list(root)))
            while open_:
                fd, names = open_[-1]
                name = next(names, None)
                if name is None:
                    open_.pop()
                    os.close(fd)
                elif len(open_) >= _DEEPEST:
                    self.skipped += 1
                else:
                    self._enter(fd, name, open_)
        finally:
            for fd, _ in open_:
                os.close(fd)

    def _enter(self, at: int, name: str, open_: list[tuple[int, Iterator[str]]]) -> None:
        try:
            fd = os.open(name, _OPEN, dir_fd=at)
        except OSError as error:
            self.skipped += error.errno not in _VANISHED
            return
        open_.append((fd, iter(())))
        if os.fstat(fd).st_dev == self._device:  # something may have been mounted meanwhile
            open_[-1] = (fd, iter(self._list(fd)))

    def _list(self, fd: int) -> list[str]:
        """Count the entries of a directory; the names of its directories."""
        directories = []
        with contextlib.ExitStack() as stack:
            try:
                entries = stack.enter_context(os.scandir(fd))
            except OSError:
                self.skipped += 1
                return []
            for entry in entries:
                self._entries += 1
                if self._entries % _ENTRIES == 0:
                    self._rest()
                try:
                    found = entry.stat(follow_symlinks=False)
                except OSError as error:
                    self.skipped += error.errno not in _VANISHED
                    continue
                if found.st_dev != self._device:
                    continue
                self._count(found)
                if stat.S_ISDIR(found.st_mode):
                    directories.append(entry.name)
        return directories

    def _count(self, found: os.stat_result) -> None:
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            if found.st_ino in self._linked:
                return
            if len(self._linked) >= _MOST_LINKED:  # each name for its part: right when all are below
                self.blocks += found.st_blocks // found.st_nlink
                return
            self._linked.add(found.st_ino)
        self.blocks += found.st_blocks
        self.inodes += 1
