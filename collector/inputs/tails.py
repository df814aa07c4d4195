"""Tails the logs of every container discovery knows of: which to read, when, and how much at a time.

One thread reads them all. The kernel says which log was written to, each gets one block in its turn, and
after a round the thread rests for a moment, so that a busy log is read in large blocks and a quiet one costs
nothing. How a log is read is left to ``json_file.py`` and ``journal.py``.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import logging
import math
import os
import select
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from collector.container import Container
from collector.in_thread import run_in_thread
from collector.inputs.cri_file import CriFileTail
from collector.inputs.directory_watch import DirectoryWatch
from collector.inputs.intake import Intake, Sources
from collector.inputs.journal import JournalTail
from collector.inputs.json_file import JsonFileTail
from collector.inputs.losses import TailCounters
from collector.inputs.own_addresses import sends_to
from collector.sink import Source
from logdrivers.journal import JournalReader
from logdrivers.journals.segment_reader import SegmentReader, journal_directory
from logdrivers.local import local_log_path, local_reader

__all__ = ["Registry", "Tail", "TailStatus", "Tails"]

log = logging.getLogger(__name__)

#: Rest after a round in which something was read: what is written meanwhile comes as one block.
_REST_SECONDS = 0.05
#: How long an ended container's log is watched for late lines.
_GRACE_SECONDS = 15.0
#: How long a removed container's open log is tried to be stored while the store cannot take it.
_PATIENCE_SECONDS = 600.0
_LONGEST_RETRY_SECONDS = 30.0
#: How often a log is looked at that the kernel does not tell about (no directory yet, no watches left).
_UNTOLD_SECONDS = 1.0
_ENDED = frozenset({"exited", "dead"})


class Registry(Protocol):
    """What is needed of discovery's containers."""

    def all(self) -> Collection[Container]:
        """Every known container."""

    def subscribe(self, callback: Callable[[str, Container], None]) -> Callable[[], None]:
        """Call back with ``added``, ``changed`` or ``removed``, from any thread; returns the end of it."""


class Tail(Protocol):
    """A log that is read a block at a time."""

    source: Source
    counters: TailCounters

    def turn(self) -> bool:
        """Store at most about one block; whether more may be there."""

    def close(self, removed: bool = False) -> None:
        """Give up the files; ``removed`` counts what is unread as lost."""


@dataclass(slots=True)
class TailStatus:
    """One container's log as ``Tails.status`` shows it; live, read only."""

    container: Container
    counters: TailCounters
    behind: bool = True  #: whether more was there at the last look
    failures: int = 0
    error: str = ""  #: why it cannot be read or stored now


@dataclass(slots=True)
class _Watched:
    """A tail, and when it is to be read and closed."""

    status: TailStatus
    tail: Tail
    input: str
    directory: Path
    told: bool = False  #: whether the kernel tells of changes
    close_at: float = math.inf  #: close at the end of the log after this time
    removed: bool = False
    retry_at: float = 0.0
    retry_seconds: float = 0.5


class Tails:
    """See the module. ``run`` it as a task; ``status`` and ``totals`` are for any thread.

    ``own_addresses``: where this collector's inputs listen (``host:port``); journals of drivers that send
    there are not read, their lines come in by the input.
    """

    def __init__(
        self,
        containers: Registry,
        intake: Intake,
        sources: Sources,
        own_addresses: Collection[str] = (),
        *,
        open_journal: Callable[[Path], JournalReader] = SegmentReader,
        block_bytes: int = 1 << 18,
        recheck_seconds: float = 30.0,
    ) -> None:
        self._containers = containers
        self._intake = intake
        self._sources = sources
        self._own_addresses = tuple(own_addresses)
        self._open_journal = open_journal
        self._block_bytes = block_bytes
        self._recheck_seconds = recheck_seconds
        self._watch = DirectoryWatch()
        self._warned = False  # that the kernel does not tell of changes
        self._inbox = _Inbox()
        self._stopping = False
        self._watched: dict[str, _Watched] = {}
        self._by_directory: dict[Path, set[str]] = {}
        self._ready: dict[str, None] = {}  # in order: containers whose log may have more
        self._ended = TailCounters()  # of the tails that are closed

    async def run(self) -> None:
        """Tail until cancelled; what was read is stored then."""
        await run_in_thread("tails", self.run_forever, self.stop)

    def stop(self) -> None:
        """Make ``run_forever`` return soon; from any thread."""
        self._stopping = True
        self._inbox.wake()

    def status(self) -> Mapping[str, TailStatus]:
        """The open tails by container id."""
        return {key: watched.status for key, watched in self._watched.copy().items()}

    def totals(self) -> TailCounters:
        """Sums over all tails since the start, closed ones included."""
        total = TailCounters()
        total.add(self._ended)
        for status in self.status().values():
            total.add(status.counters)
        return total

    def run_forever(self) -> None:
        """Tail in this thread until ``stop``; once."""
        unsubscribe = self._containers.subscribe(self._inbox.put)
        try:
            for container in self._containers.all():
                self._inbox.put("added", container)
            next_check = time.monotonic() + self._recheck_seconds
            while not self._stopping:
                self._wait(next_check)
                for event, container in self._inbox.take():
                    self._notice(event, container)
                for directory in self._watch.changed():
                    self._ready.update(dict.fromkeys(self._by_directory.get(directory, ())))
                now = time.monotonic()
                if now >= next_check:
                    next_check = now + self._recheck_seconds
                    self._ready.update(dict.fromkeys(self._watched))
                self._look_at_untold()
                if self._round():
                    self._inbox.rest(_REST_SECONDS)
        finally:
            unsubscribe()
            for key in tuple(self._watched):
                self._close(key)
            self._watch.close()
            self._inbox.close()

    def _wait(self, next_check: float) -> None:
        """Until something is to be done."""
        now = time.monotonic()
        due = next_check
        for key, watched in self._watched.items():
            if key in self._ready:
                due = min(due, watched.retry_at)
            else:
                due = min(due, watched.close_at, due if watched.told else now + _UNTOLD_SECONDS)
        poll = select.poll()
        if self._watch.fileno() >= 0:
            poll.register(self._watch, select.POLLIN)
        poll.register(self._inbox, select.POLLIN)
        poll.poll(max(0.0, due - now) * 1000)

    # --- which logs ----------------------------------------------------------------------------------

    def _notice(self, event: str, container: Container) -> None:
        watched = self._watched.get(container.id)
        if watched is not None and watched.status.container.log != container.log and event != "removed":
            self._close(container.id)
            watched = None
        if watched is None:
            watched = self._open(container)
            if watched is None:
                return
        watched.status.container = container
        watched.tail.source = self._source(container, watched.input)
        now = time.monotonic()
        if event == "removed":
            watched.removed = True
            watched.close_at = now
        elif container.state not in _ENDED:
            watched.close_at = math.inf
        elif watched.close_at == math.inf:
            watched.close_at = now + (_GRACE_SECONDS if event == "changed" else 0.0)
        self._ready[container.id] = None

    def _open(self, container: Container) -> _Watched | None:
        source = container.log
        tail: Tail
        kind = _file_tail(container)
        if kind is not None:
            path = Path(source.path)
            key, name, directory = f"{source.driver}:{container.id}", source.driver, path.parent
            origin = self._source(container, name)
            tail = kind(path, key, origin, self._intake, self._block_bytes, source.user)
        elif source.directory and source.driver not in ("", "none", "json-file"):
            if sends_to(source, self._own_addresses):
                return None
            key, name = f"journal:{container.id}", "journal"
            log_directory = Path(source.directory)
            reader: Callable[[], JournalReader]
            segments = None
            if source.driver == "local":
                directory = local_log_path(log_directory).parent
                reader = functools.partial(local_reader, log_directory, source.options)
            else:
                directory = segments = journal_directory(log_directory)
                reader = functools.partial(self._open_journal, log_directory)
            origin = self._source(container, name)
            tail = JournalTail(reader, key, origin, self._intake, self._block_bytes, segments=segments)
        else:
            return None
        watched = _Watched(TailStatus(container, tail.counters), tail, name, directory)
        self._watched[container.id] = watched
        self._by_directory.setdefault(directory, set()).add(container.id)
        self._ask_kernel(watched)
        return watched

    def _source(self, container: Container, name: str) -> Source:
        return self._sources(container.id, container.name, container.image, name)

    def _ask_kernel(self, watched: _Watched) -> None:
        try:
            self._watch.add(watched.directory)
            watched.told = True
        except (FileNotFoundError, NotADirectoryError):
            pass  # not made yet, or removed
        except OSError as error:
            level = logging.DEBUG if self._warned else logging.WARNING
            self._warned = True
            log.log(level, "looking at logs every %.0f s instead: %s", _UNTOLD_SECONDS, error)
        else:
            self._warned = False

    def _look_at_untold(self) -> None:
        for key, watched in self._watched.items():
            if watched.told and not self._watch.watched(watched.directory):
                watched.told = False
                self._watch.remove(watched.directory)
            if not watched.told:
                self._ask_kernel(watched)
                self._ready[key] = None

    def _close(self, key: str) -> None:
        watched = self._watched[key]
        watched.tail.close(watched.removed)
        self._ended.add(watched.status.counters)
        del self._watched[key]
        self._ready.pop(key, None)
        if watched.told:
            self._watch.remove(watched.directory)
        keys = self._by_directory[watched.directory]
        keys.discard(key)
        if not keys:
            del self._by_directory[watched.directory]

    # --- reading -------------------------------------------------------------------------------------

    def _round(self) -> bool:
        """A turn for every log that may have more. Returns whether it is time for a rest."""
        read = hurry = False
        for key in tuple(self._ready):
            watched = self._watched[key]
            if watched.retry_at > time.monotonic():
                continue
            before = watched.status.counters.bytes
            more = self._turn(watched)
            size = watched.status.counters.bytes - before
            if 2 * size >= self._block_bytes:
                hurry = True  # it is far behind: the next round at once
                continue
            read = True
            if more or watched.status.error:
                continue
            del self._ready[key]
            if watched.close_at <= time.monotonic():
                self._close(key)
        return read and not hurry

    def _turn(self, watched: _Watched) -> bool:
        status = watched.status
        try:
            status.behind = watched.tail.turn()
        except (OSError, ValueError) as error:
            self._fail(watched, error)
            return True
        if status.error:
            log.info("tailing %s goes on", status.container.name)
            status.error, watched.retry_at, watched.retry_seconds = "", 0.0, 0.5
        return status.behind

    def _fail(self, watched: _Watched, error: OSError | ValueError) -> None:
        status = watched.status
        now = time.monotonic()
        status.failures += 1
        if not status.error:
            log.error("tailing the log of %s failed, trying again: %s", status.container.name, error)
        status.error = str(error)
        watched.retry_at = now + watched.retry_seconds
        watched.retry_seconds = min(watched.retry_seconds * 2, _LONGEST_RETRY_SECONDS)
        if watched.removed and now > watched.close_at + _PATIENCE_SECONDS:
            self._close(status.container.id)


def _file_tail(container: Container) -> type[JsonFileTail] | None:
    """How a log that is a file is read; None where there is no file we can read."""
    driver = container.log.driver
    if not container.log.path:
        return None
    if driver in ("k8s-file", "cri") or (driver == "json-file" and container.engine == "podman"):
        return CriFileTail  # podman takes json-file to be another name of its own format
    return JsonFileTail if driver == "json-file" else None


class _Inbox:
    """Events from other threads, and a descriptor to wait for them."""

    def __init__(self) -> None:
        self._events: collections.deque[tuple[str, Container]] = collections.deque()
        self._lock = threading.Lock()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._fd

    def put(self, event: str, container: Container) -> None:
        self._events.append((event, container))
        self.wake()

    def wake(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.eventfd_write(self._fd, 1)

    def take(self) -> list[tuple[str, Container]]:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)
        return [self._events.popleft() for _ in range(len(self._events))]

    def rest(self, seconds: float) -> None:
        """Wait, but not past the next event."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.poll(seconds * 1000)

    def close(self) -> None:
        with self._lock:
            os.close(self._fd)
            self._fd = -1
