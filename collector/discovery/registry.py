"""The containers this host has, by whom and in which state: the one list every part of the collector reads.

Discovery writes it, everybody else reads snapshots and subscribes. A container that ended stays as a
tombstone for some minutes, so that its last counters and its exit code can still be scraped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from collector.container import Container

__all__ = ["RUNNING", "Callback", "Containers", "Tombstone"]

logger = logging.getLogger(__name__)

#: Called with ``added``, ``changed`` or ``removed`` and the container as it is now (or last was).
Callback = Callable[[str, Container], None]

#: Docker's words for a container that has processes.
RUNNING = frozenset({"running", "paused"})


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A container that ended not long ago."""

    container: Container  #: as it last was; its state is never one of ``RUNNING``
    ended_ns: int  #: when it ended, by our clock
    removed: bool  #: its engine no longer knows it


class Containers:
    """All known containers. Safe to use from any thread; callbacks run in the thread that changed it."""

    def __init__(self, tombstone_seconds: float = 300.0, clock: Callable[[], int] = time.time_ns) -> None:
        self._keep_ns = int(tombstone_seconds * 1e9)
        self._clock = clock
        self._lock = threading.RLock()
        self._known: dict[str, Container] = {}
        self._names: dict[str, str] = {}
        self._ended: dict[str, Tombstone] = {}
        self._snapshot: tuple[Container, ...] | None = ()
        self._callbacks: list[tuple[Callback, bool]] = []
        self._offered: set[str] = set()  # those no engine's API has told of
        self._bare: dict[str, Container] = {}

    def get(self, key: str) -> Container | None:
        """The container with this id, name (with or without ``/``) or unambiguous id prefix.

        A removed one is found while its tombstone lasts, but never in the place of a known one.
        """
        with self._lock:
            return self.exact(key) or self.by_prefix(key)

    def exact(self, key: str) -> Container | None:
        """``get`` by a whole id or name only."""
        name = key.removeprefix("/")
        with self._lock:
            found = self._known.get(key) or self._known.get(self._names.get(name, ""))
            found = found or self._bare.get(key)
            if found is not None:
                return found
            stones = self._live_tombstones()
            if key in stones:
                return stones[key].container
            named = [stone for stone in stones.values() if stone.container.name == name]
            return max(named, key=lambda stone: stone.ended_ns).container if named else None

    def by_prefix(self, prefix: str) -> Container | None:
        """``get`` by the beginning of an id only; None if it is that of several."""
        if not prefix:
            return None
        with self._lock:
            found = [container for key, container in self._known.items() if key.startswith(prefix)]
            if not found:
                stones = self._live_tombstones()
                found = [stone.container for key, stone in stones.items() if key.startswith(prefix)]
            return found[0] if len(found) == 1 else None

    def all(self) -> tuple[Container, ...]:
        """Every container its engine still knows, running or not, in the order of discovery."""
        with self._lock:
            if self._snapshot is None:
                self._snapshot = tuple(self._known.values())
            return self._snapshot

    def cgroups(self) -> tuple[Container, ...]:
        """Services, slices, pods and whatever else has a cgroup and no engine; ``all`` has none of them."""
        with self._lock:
            return tuple(self._bare.values())

    def tombstones(self) -> tuple[Tombstone, ...]:
        """Those that ended in the last minutes: removed ones, and exited ones that ``all`` has too."""
        with self._lock:
            return tuple(self._live_tombstones().values())

    def offer(self, container: Container) -> bool:
        """``update`` by somebody who knows less than an engine's API: what that told of is not changed.

        Also the way in for bare cgroups. Returns whether the container was taken.
        """
        with self._lock:
            if container.bare:
                before = self._bare.get(container.id)
                if before != container:
                    self._bare[container.id] = container
                    self._tell("added" if before is None else "changed", container)
                return True
            if container.id in self._known and container.id not in self._offered:
                return False
            self._put(container)
            self._offered.add(container.id)
            return True

    def offered(self, container_id: str) -> bool:
        """Whether a known container was only offered, no engine's API having told of it."""
        with self._lock:
            return container_id in self._offered or container_id in self._bare

    def update(self, container: Container) -> None:
        """Add the container, or put it in the place of the one with its id. Equal ones change nothing."""
        with self._lock:
            self._offered.discard(container.id)
            self._put(container)

    def _put(self, container: Container) -> None:
        with self._lock:
            before = self._known.get(container.id)
            if before == container:
                return
            self._known[container.id] = container
            self._snapshot = None
            if before is not None and self._names.get(before.name) == before.id:
                del self._names[before.name]
            self._names[container.name] = container.id
            self._bury(before, container)
            self._tell("added" if before is None else "changed", container)

    def remove(self, container_id: str, engine: str) -> None:
        """Forget a container, if this engine is the one that brought it; its tombstone stays a while."""
        with self._lock:
            bare = self._bare.pop(container_id, None)
            if bare is not None:
                self._tell("removed", replace(bare, state="exited", pid=0))
                return
            container = self._known.get(container_id)
            if container is None or container.engine != engine:
                return
            del self._known[container_id]
            self._offered.discard(container_id)
            self._snapshot = None
            if self._names.get(container.name) == container_id:
                del self._names[container.name]
            stone = self._ended.get(container_id)
            running = container.state in RUNNING
            if container.state != "dead":  # "removing" was on the way to here
                container = replace(container, state="exited", pid=0)
            if stone is not None:
                self._ended[container_id] = Tombstone(container, stone.ended_ns, True)
            elif running:
                self._ended[container_id] = Tombstone(container, self._clock(), True)
            self._tell("removed", container)

    def subscribe(self, callback: Callback, cgroups: bool = False) -> Callable[[], None]:
        """Call back on every change from now on, with ``cgroups`` of bare ones too; the answer ends it."""
        entry = (callback, cgroups)
        with self._lock:
            self._callbacks.append(entry)

        def unsubscribe() -> None:
            with self._lock:
                if entry in self._callbacks:
                    self._callbacks.remove(entry)

        return unsubscribe

    def _bury(self, before: Container | None, now: Container) -> None:
        """Keep the tombstones right across a change of state."""
        if now.state in RUNNING or now.state == "created":
            self._ended.pop(now.id, None)
        elif before is not None and before.state in RUNNING:
            self._ended[now.id] = Tombstone(now, self._clock(), False)
        elif now.id in self._ended:
            self._ended[now.id] = replace(self._ended[now.id], container=now)
        elif now.finished_ns > self._clock() - self._keep_ns:
            self._ended[now.id] = Tombstone(now, now.finished_ns, False)

    def _live_tombstones(self) -> dict[str, Tombstone]:
        oldest = self._clock() - self._keep_ns
        for container_id in [key for key, stone in self._ended.items() if stone.ended_ns < oldest]:
            del self._ended[container_id]
        return self._ended

    def _tell(self, event: str, container: Container) -> None:
        for callback, cgroups in tuple(self._callbacks):
            if container.bare and not cgroups:
                continue
            try:
                callback(event, container)
            except Exception:  # one subscriber's fault must not blind the others
                logger.exception("a subscriber failed on %s of container %s", event, container.name)
