"""Group ``disk``: bytes of each container's writable layer, log and volumes, and the room there is.

Sizes come from a slow walk (``walker.py``), so the group has a lane of its own; cAdvisor counts the same
directories. Limits and inodes are those of the file system the layer is on, from ``statvfs``.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from collector.container import LogSource
from collector.disk.places import source_of, upper_directory, volumes
from collector.disk.walker import Stopped, Usage, Walker
from collector.lanes.board import Reading
from collector.roots import Roots
from collector.target import Target
from logdrivers.mountinfo import parse_mountinfo

__all__ = ["DiskGroup", "files_bytes"]

logger = logging.getLogger(__name__)


class DiskGroup:
    """Walks one container's directories in one reading; a volume of several containers once for all."""

    name = "disk"

    def __init__(
        self,
        roots: Roots,
        seconds: float = 300.0,
        walker: Walker | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds = seconds
        self.walker = walker or Walker()
        self._proc = str(roots.proc)
        self._root = str(roots.root).rstrip("/")
        self._clock = clock
        self._volumes: dict[tuple[int, int], tuple[float, Usage]] = {}
        self._complaints: set[str] = set()

    def read(self, target: Target) -> Sequence[Reading]:
        """Raise OSError where the container is gone; nothing for a bare cgroup.

        A part that cannot be read is logged and left out, the others are there.
        """
        container = target.container
        if container.bare or container.pid <= 0:
            return ()
        process = f"{self._proc}/{container.pid}"
        mounts = parse_mountinfo(_mountinfo(Path(process)))
        parts: list[tuple[str, Callable[[], list[Reading]]]] = [
            ("writable layer", lambda: self._layer(upper_directory(mounts))),
            ("log", lambda: self._log(container.log)),
            *(
                (f"volume {name}", partial(self._volume, name, f"{process}/root{point}"))
                for name, point in sorted(volumes(mounts).items())
            ),
        ]
        readings = []
        for what, read in parts:
            try:
                readings += read()
            except Stopped:
                raise
            except OSError as error:
                self._complain(f"cannot measure the {what} of container {container.name}: {error}")
        return readings

    def _layer(self, upper: str) -> list[Reading]:
        if not upper:
            return []
        path = self._root + upper
        usage = self._usage(path)
        room = os.statvfs(path)
        table = Path(self._proc, "1/mountinfo")
        if not os.access(table, os.R_OK):
            table = Path(self._proc, "self/mountinfo")
        labels = (("device", source_of(upper, parse_mountinfo(table.read_bytes()))),)
        return [
            Reading("container_fs_usage_bytes", labels, usage.size_bytes),
            Reading("container_fs_limit_bytes", labels, room.f_blocks * room.f_frsize),
            Reading("container_fs_inodes_total", labels, room.f_files),
            Reading("container_fs_inodes_free", labels, room.f_ffree),
        ]

    def _log(self, log: LogSource) -> list[Reading]:
        """The log's directory, or its file with those it was rotated to; nothing where it is elsewhere."""
        size = 0
        directory = self._root + log.directory
        if log.directory:
            size = self._usage(directory).size_bytes
        if log.path and not (log.directory and log.path.startswith(log.directory.rstrip("/") + "/")):
            size += files_bytes(self._root + log.path)
        return [Reading("container_log_bytes", (), size)] if log.directory or log.path else []

    def _volume(self, name: str, path: str) -> list[Reading]:
        """The file system mounted at ``path``, walked at most twice an interval however many have it."""
        found = Path(path).stat(follow_symlinks=False)
        now = self._clock()
        for key in [key for key, (when, _) in self._volumes.items() if now - when >= self.seconds / 2]:
            del self._volumes[key]
        key = found.st_dev, found.st_ino
        if key not in self._volumes:
            self._volumes[key] = (now, self._usage(path))
        labels = (("volume", name),)
        return [Reading("container_volume_bytes", labels, self._volumes[key][1].size_bytes)]

    def _usage(self, path: str) -> Usage:
        usage = self.walker.usage(path)
        if usage.skipped:
            self._complain(f"{usage.skipped} entries below {path} could not be looked at")
        return usage

    def _complain(self, text: str) -> None:
        """Once for each thing: it will be the same at the next reading."""
        if len(self._complaints) > 1000:
            self._complaints.clear()
        logger.log(logging.DEBUG if text in self._complaints else logging.WARNING, "%s", text)
        self._complaints.add(text)


def _mountinfo(process: Path) -> bytes:
    """What a process has mounted. Raises OSError, ESRCH as well for one that has ended and waits to be reaped."""
    try:
        return (process / "mountinfo").read_bytes()
    except OSError as error:
        if error.errno == errno.EINVAL:  # it has no mount namespace any more
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), str(process)) from error
        raise


def files_bytes(path: str) -> int:
    """Bytes on disk of a file and of ``.1``, ``.2.gz`` and so on beside it. Raises OSError."""
    directory, _, name = path.rpartition("/")
    total = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name == name or entry.name.startswith(f"{name}."):
                total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total
