"""How containers without an engine to ask ended: the files conmon and containerd write, told of by the kernel.

conmon leaves ``<exit directory>/<id>`` with the exit code, which podman reads and removes soon after; podman
removes ``overlay-containers/<id>`` with the container. containerd's CRI part puts a new ``status`` into
``containers/<id>``, which it removes with the container. The directories are watched once a container that
uses them is found.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from collector.discovery.containerd_metadata import exit_code_of_status
from collector.discovery.podman_files import exit_code_in
from logdrivers.inotify import CLOSE_WRITE, CREATE, DELETE, IS_DIRECTORY, MOVED_TO, OVERFLOW, Watch

__all__ = ["Endings"]

logger = logging.getLogger(__name__)

_MOST_CODES = 256
_MOST_DIRECTORIES = 64
_MOST_STATUSES = 4096


class Endings:
    """Exit codes and removals, as they are written. Not thread-safe."""

    def __init__(self, exit_told: Callable[[str, int], None], forgotten: Callable[[str], None]) -> None:
        """``exit_told`` gets id and code, ``forgotten`` the id of a container whose directory is gone."""
        self._exit_told = exit_told
        self._forgotten = forgotten
        self._inotify: Watch | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._exits: dict[int, Path] = {}
        self._exit_directories: set[Path] = set()
        self._stores: dict[int, Path] = {}
        self._watched: dict[Path, int] = {}
        self._statuses: dict[int, Path] = {}  # a watch of one container's directory to the file in it
        self._store_of: dict[str, Path] = {}
        self._codes: OrderedDict[str, int] = OrderedDict()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to listen on the loop; where the host allows no watch, only ``look_again`` finds anything."""
        self._loop = loop
        try:
            self._inotify = Watch()
        except OSError as error:
            logger.warning("exit codes and removals of containers will be seen late: %s", error)
            return
        loop.add_reader(self._inotify.fileno(), self._readable)

    def watch(
        self,
        exit_directory: Path | None,
        storage: Path | None,
        container_id: str,
        status: Path | None = None,
    ) -> None:
        """Listen for the end and for the removal of a container; directories that are not there are left out."""
        self._codes.pop(container_id, None)  # of an earlier run
        if exit_directory is not None:
            if len(self._exit_directories) < _MOST_DIRECTORIES:
                self._exit_directories.add(exit_directory)
            self._add(exit_directory, self._exits, MOVED_TO | CLOSE_WRITE | CREATE)
        if storage is not None:
            directory = next(storage.glob(f"*-containers/{container_id}"), None)
            if directory is not None:
                self._add(directory.parent, self._stores, DELETE)
                self._store_of[container_id] = directory
        if status is not None:
            self._add_status(status)
            self._store_of[container_id] = status.parent

    def exit_code(
        self, exit_directory: Path | None, container_id: str, status: Path | None = None
    ) -> int | None:
        """The code, where it is known by now."""
        if self._inotify is not None:
            self._readable()  # what was told and not yet heard
        code = self._codes.get(container_id)
        if code is None and exit_directory is not None:
            code = exit_code_in(exit_directory, container_id)
        if code is None and status is not None:
            code = exit_code_of_status(status)
        return code

    def kept(self, container_id: str) -> bool:
        """Whether its engine still has the container, and its removal will be told."""
        directory = self._store_of.get(container_id)
        if directory is None:
            return False
        if directory.is_dir():
            return True
        del self._store_of[container_id]
        return False

    def close(self) -> None:
        """Listen no longer."""
        if self._inotify is not None:
            if self._loop is not None:
                self._loop.remove_reader(self._inotify.fileno())
            self._inotify.close()
            self._inotify = None
        for watched in (self._exits, self._stores, self._watched, self._statuses):
            watched.clear()  # numbers of another descriptor say nothing when it starts again

    def _add(self, directory: Path, watches: dict[int, Path], mask: int) -> bool:
        if directory in self._watched:
            return True
        if self._inotify is None or len(self._watched) >= _MOST_DIRECTORIES:
            return False
        try:
            number = self._inotify.add(directory, mask, directory=True)
        except OSError as error:
            logger.info("ends of containers are not told by %s: %s", directory, error)
            return False
        watches[number] = directory
        self._watched[directory] = number
        return True

    def _add_status(self, status: Path) -> bool:
        """Watch one container's directory, and that of all of them for its removal."""
        if not self._add(status.parent.parent, self._stores, DELETE):
            return False
        if self._inotify is None or len(self._statuses) >= _MOST_STATUSES:
            return False
        try:
            self._statuses[self._inotify.add(status.parent, MOVED_TO | CLOSE_WRITE, directory=True)] = status
        except OSError as error:
            logger.info("the end of a container is not told by %s: %s", status, error)
            return False
        return True

    def _status_changed(self, watch: int, name: str) -> None:
        status = self._statuses[watch]
        if name != status.name or self._inotify is None:
            return
        code = exit_code_of_status(status)
        if code is not None:
            self._inotify.remove(watch)
            del self._statuses[watch]
            self._exit_told(status.parent.name, code)

    def _readable(self) -> None:
        assert self._inotify is not None
        for watch, mask, name in self._inotify.read():
            if mask & OVERFLOW:
                self.look_again()
                continue
            if watch in self._statuses:
                self._status_changed(watch, name)
            elif watch in self._exits:
                self._exit_written(self._exits[watch], name)
            elif watch in self._stores and mask & IS_DIRECTORY:
                self._let_go(name)

    def _exit_written(self, directory: Path, container_id: str) -> None:
        code = exit_code_in(directory, container_id)
        if code is None:
            return
        self._codes[container_id] = code
        while len(self._codes) > _MOST_CODES:
            self._codes.popitem(last=False)
        self._exit_told(container_id, code)

    def _let_go(self, container_id: str) -> None:
        directory = self._store_of.pop(container_id, None)
        for watch in [watch for watch, status in self._statuses.items() if status.parent == directory]:
            del self._statuses[watch]  # the kernel's went with the directory
        self._forgotten(container_id)

    def look_again(self) -> None:
        """See which containers ended, and which are gone: the kernel dropped events, or tells of none."""
        for watch, status in tuple(self._statuses.items()):
            self._status_changed(watch, status.name)
        for directory in tuple(self._exit_directories):
            with contextlib.suppress(OSError):  # gone with its engine
                for entry in tuple(directory.iterdir()):
                    self._exit_written(directory, entry.name)
        for container_id, directory in tuple(self._store_of.items()):
            if not directory.is_dir():
                self._let_go(container_id)
