"""What the log drivers count, read from their files at every scrape: of a container that is quiet, next to nothing.

A directory that has not changed has no new file, and bytes that have not changed are not parsed again. The
series are ``log_metrics.py``'s, the files ``logdrivers/delivery_state.py``'s and its neighbours'.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from collector.container import Container
from logdrivers.delivery import STATE_NAME, Counters, read_counters
from logdrivers.driver import Info
from logdrivers.journal import JournalReader
from logdrivers.registry import get, known
from logdrivers.source.rate_limit import SOURCE_STATE_NAME, with_dropped
from runtime.shim.gap import GAPS_STATE_NAME, read_gaps

__all__ = ["GapCounts", "LogCounts", "log_labels"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: A change of a directory that came this soon after another may have the same time.
_SETTLED_NS = 1_000_000_000


def log_labels(container: Container) -> tuple[str, str, str, str]:
    """The values of ``id``, ``name``, ``image`` and ``driver``."""
    return container.cgroup or container.id, container.name, container.image, container.log.driver


class GapCounts:
    """How often output of each container of our engine may have been lost."""

    def __init__(self) -> None:
        self._gaps: dict[str, _Files[int]] = {}

    def read(self, containers: Iterable[Container]) -> Iterator[tuple[Container, int]]:
        """Those whose count can be read; a failure is logged."""
        before, self._gaps = self._gaps, {}
        for container in containers:
            where = container.log.directory
            if not where:
                continue  # another engine's
            files = before.get(where) or _Files(
                where, (GAPS_STATE_NAME,), functools.partial(read_gaps, Path(where))
            )
            self._gaps[where] = files
            try:
                yield container, files.read()
            except (OSError, ValueError) as error:
                log.warning("cannot read the gaps in the log of %s: %s", container.name, error)


class LogCounts:
    """Lines written, delivered, held and dropped of every container with a driver of ours."""

    def __init__(self, plugins: Path) -> None:
        """``plugins`` holds the plugins' state, a directory a name."""
        self._plugins = plugins
        self._logs: dict[str, _Log] = {}

    def read(self, containers: Iterable[Container]) -> Iterator[tuple[Container, Counters]]:
        """Those whose lines pass through a driver of ours, with what it last wrote down; a failure is logged."""
        before, self._logs = self._logs, {}
        in_plugins = self._in_plugins()
        for container in containers:
            where = container.log.directory or in_plugins.get(container.id)
            if not where:
                continue
            held = before.get(where)
            if held is None or held.container.log != container.log:
                held = _Log(where, container)
            self._logs[where] = held
            try:
                counters = held.counters()
            except (OSError, ValueError) as error:
                log.warning("cannot read the log counters of %s: %s", container.name, error)
                continue
            if counters is not None:
                yield container, counters

    def _in_plugins(self) -> dict[str, str]:
        """Log directories of Docker's containers whose log goes through a plugin of ours, by id."""
        if not self._plugins.is_dir():
            return {}
        return {path.parent.name: str(path) for path in self._plugins.glob("*/containers/*/log")}


class _Files(Generic[_T]):
    """Reads what is in some small files of a directory, anew where one of them changed."""

    __slots__ = ("_bytes", "_looked_ns", "_make", "_names", "_there", "_value", "_where")

    def __init__(self, where: str, file_names: tuple[str, ...], make: Callable[[], _T]) -> None:
        self._where = Path(where)
        self._names = file_names
        self._make = make
        self._looked_ns = 0  # the directory's time when it was looked into, 0 where another look is needed
        self._there: tuple[str, ...] = ()
        self._bytes: list[bytes] | None = None
        self._value: _T

    def read(self) -> _T:
        """What ``make`` made of them. Raises what it raises, OSError."""
        try:
            changed_ns = self._where.stat().st_mtime_ns
        except FileNotFoundError:
            changed_ns = 0
        if not changed_ns or changed_ns != self._looked_ns:
            settled = time.time_ns() - changed_ns > _SETTLED_NS
            self._looked_ns = changed_ns if settled else 0
            there = {path.name for path in self._where.iterdir()} if changed_ns else ()
            self._there = tuple(f"{self._where}/{name}" for name in self._names if name in there)
            self._bytes = None
        data = [_whole(path) for path in self._there]
        if data != self._bytes:
            self._bytes = None
            self._value = self._make()
            self._bytes = data
        return self._value


class _Log:
    """One container's log directory."""

    def __init__(self, where: str, container: Container) -> None:
        self.container = container
        self._where = Path(where)
        self._files = _Files(where, (STATE_NAME, SOURCE_STATE_NAME), self._noted)
        self._reader: JournalReader | None = None
        self._kept_lines = -1
        self._kept: Counters | None = None

    def counters(self) -> Counters | None:
        """None where nothing is known. Raises OSError, ValueError."""
        noted, has_state = self._files.read()
        return noted if has_state else self._of_kept()

    def _noted(self) -> tuple[Counters | None, bool]:
        """What a delivery noted, and whether there is one."""
        self._kept_lines = -1
        try:
            counters = read_counters(self._where / STATE_NAME)
        except FileNotFoundError:
            return None, False
        return (None if counters is None else with_dropped(counters, self._where)), True

    def _of_kept(self) -> Counters | None:
        """Of a driver without a sink: what it wrote to the host's disk is delivered."""
        driver = self.container.log.driver
        if not known(driver):
            return None  # a plugin that only keeps lines has no counters of its own
        if self._reader is None:
            container = self.container
            info = Info(
                *(container.id, container.name, "", container.image, (), 0, self._where),
                options=container.log.options,
            )
            self._reader = get(driver).reader(info)
            if self._reader is None:
                return None
        lines = self._reader.end_line()
        if lines != self._kept_lines:
            self._reader.close()  # it opens its files again when there are more
            self._kept_lines = lines
            self._kept = with_dropped(Counters(lines, lines), self._where)
        return self._kept


def _whole(path: str) -> bytes:
    """A file of less than a page. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)
