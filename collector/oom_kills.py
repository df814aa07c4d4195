"""How often the kernel killed a process of each container, over all of its runs and over ours.

The kernel counts in the cgroup, which is another one after every start, so a container that is killed and
started again would be back at 0 before anybody has looked. The ledger adds up runs and keeps the sums in a
small file, written when a count changes. Reading the kernel's count is ``cgroup/``'s.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import orjson

from collector.container import Container

__all__ = ["OomKills"]

logger = logging.getLogger(__name__)

#: Containers remembered before those that do not run under our eyes are dropped, oldest first.
_MOST = 4096


@dataclass(frozen=True, slots=True)
class _Count:
    run: str  #: names the run the kernel counts in
    earlier: int  #: kills in the runs before it
    total: int  #: with those of this run


class OomKills:
    """The sums by container id. Safe to use from any thread."""

    def __init__(self, file: Path | None = None) -> None:
        """Read ``file`` where there is one. A file that cannot be read is told of and written anew."""
        self.failures = 0  #: times the file could not be read or written
        self._file = file
        self._lock = threading.Lock()
        self._counts: dict[str, _Count] = {}
        self._begun: set[str] = set()
        if file is not None:
            self._load(file)

    def begin(self, container: Container) -> int:
        """A container runs, since just now or still: how many kills its earlier runs had."""
        run = f"{container.started_ns}-{container.pid}"
        with self._lock:
            self._begun.add(container.id)
            count = self._counts.get(container.id)
            if count is None:
                return 0
            if count.run != run:
                count = self._counts[container.id] = _Count(run, count.total, count.total)
                self._store()
            return count.earlier

    def note(self, container: Container, total: int) -> None:
        """The sum over all runs is ``total`` now. Costs nothing to repeat."""
        count = self._counts.get(container.id)
        if total == (count.total if count else 0):
            return
        with self._lock:
            if count is None:
                count = _Count(f"{container.started_ns}-{container.pid}", 0, 0)
            self._counts[container.id] = replace(count, total=total)
            self._store()

    def ended_killed(self, container: Container) -> int:
        """A run that we can read no more was killed, says its engine: the sum, with that kill in if none of it was.

        Only of containers that have run under our eyes: what ended before is in the file or not known.
        """
        with self._lock:
            count = self._counts.get(container.id)
            if container.id in self._begun and container.started_ns:
                if count is None or not count.run.startswith(f"{container.started_ns}-"):
                    earlier = count.total if count else 0
                    count = _Count(f"{container.started_ns}-{container.pid}", earlier, earlier)
                if count.total == count.earlier:
                    self._counts[container.id] = count = replace(count, total=count.earlier + 1)
                    self._store()
            return count.total if count else 0

    def earlier_killed(self, container: Container) -> None:
        """A run before the one that goes on now was killed, and nobody had counted that."""
        with self._lock:
            count = self._counts.get(container.id)
            if count is None:
                count = _Count(f"{container.started_ns}-{container.pid}", 0, 0)
            self._counts[container.id] = replace(count, earlier=count.earlier + 1, total=count.total + 1)
            self._store()

    def total(self, container_id: str) -> int:
        """All kills of a container that anybody has told of."""
        count = self._counts.get(container_id)
        return count.total if count else 0

    def forget(self, gone: Iterable[str]) -> None:
        """Drop containers nobody can ask for any more."""
        with self._lock:
            self._begun.difference_update(gone)
            counted = [container_id for container_id in gone if self._counts.pop(container_id, None)]
            if counted:
                self._store()

    def _load(self, file: Path) -> None:
        try:
            entries = orjson.loads(file.read_bytes())
            self._counts = {
                str(key): _Count(str(one["run"]), int(one["earlier"]), int(one["total"]))
                for key, one in entries.items()
            }
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self.failures += 1
            logger.warning("cannot read the out-of-memory kills of former runs from %s: %s", file, error)

    def _store(self) -> None:
        if self._file is None:
            return
        if len(self._counts) > _MOST:  # of containers removed while nobody looked
            for key in [key for key in self._counts if key not in self._begun][: len(self._counts) - _MOST]:
                del self._counts[key]
        draft = self._file.with_suffix(".new")
        try:
            draft.write_bytes(orjson.dumps({key: asdict(count) for key, count in self._counts.items()}))
            draft.replace(self._file)
        except OSError as error:
            self.failures += 1
            logger.warning("cannot write the out-of-memory kills to %s: %s", self._file, error)
