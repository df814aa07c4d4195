"""What becomes of the directories of containers that no longer log: which go, when, and what is lost with them.

A container its engine has removed goes as soon as its sink has everything. Those of which no engine has said
anything stay until all together are over a limit: the oldest delivered ones first, undelivered ones only if
that is not enough. Whatever is lost is counted by cause in ``removed.json``, which the agent shows.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import orjson

from logdrivers.delivery import STATE_NAME, Counters, read_counters
from logdrivers.plugin.record import REMOVED_MARK
from logdrivers.source.rate_limit import with_dropped

if TYPE_CHECKING:
    from logdrivers.plugin.container import PluginContainer

__all__ = ["BUDGET", "DEFAULT_MAX_BYTES", "Removals", "RemovedLines", "removed_lines"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Bytes that directories of containers which no longer log may take together.
DEFAULT_MAX_BYTES = 4 << 30
#: The cause under which lines are counted that the limit took before their sink had them.
BUDGET = "budget"
_TOTALS = "removed.json"
_LEAVING = "leaving"
#: How often a reader looks until nothing was removed while it did.
_READS = 5


@dataclass(frozen=True, slots=True)
class RemovedLines:
    """Lines of containers that are gone: written = delivered + held + dropped."""

    written: int = 0
    delivered: int = 0
    held: int = 0  #: still waiting for their sinks
    dropped: Counter[str] = field(default_factory=Counter)  #: by cause

    def __add__(self, other: RemovedLines) -> RemovedLines:
        return RemovedLines(
            self.written + other.written,
            self.delivered + other.delivered,
            self.held + other.held,
            self.dropped + other.dropped,
        )


class Removals:
    """Removes directories of one plugin. Not thread-safe."""

    def __init__(self, state: Path, max_bytes: int, forget: Callable[[PluginContainer], None]) -> None:
        """``forget`` is told of each container whose directory is gone, before another may take its name."""
        self._forget = forget
        self._state = state
        self._leaving = state / _LEAVING
        self._max_bytes = max_bytes

    def start(self) -> None:
        """Finish what a plugin before this one had begun to remove. Raises OSError."""
        self._leaving.mkdir(mode=0o700, exist_ok=True)
        for directory in self._leaving.iterdir():
            try:
                self._bury(directory, _counters_in(directory))
            except (OSError, ValueError) as error:
                log.error("remove the log of container %s: %s", directory.name[:12], error)

    def take(self, container: PluginContainer, why: str) -> bool:
        """Remove a container's directory: whether that was done. What its sink has not taken is lost, as BUDGET."""
        counters = container.counters()
        try:
            target = self._leaving / container.directory.name
            if not container.discard(target):
                return False
            self._forget(container)
            if target.exists():  # it may never have had one
                self._bury(target, counters)
        except (OSError, ValueError) as error:
            log.error("remove the log of %s: %s", container.name, error)
            return False
        held = counters.held if counters is not None else 0
        if held:
            log.error("%s: its log is removed (%s), %d lines of it undelivered", container.name, why, held)
        else:
            log.info("%s: its log is removed: %s", container.name, why)
        return True

    def keep_limit(self, candidates: Iterable[PluginContainer]) -> None:
        """Bring the directories of containers that may go within the limit."""
        rows = sorted(
            ((c.ended_at, _size(c.directory), c) for c in candidates if not c.active), key=lambda row: row[0]
        )
        total = sum(size for _, size, _ in rows)
        why = f"over {self._max_bytes} bytes of logs of containers that no longer log"
        kept: list[tuple[int, PluginContainer]] = []
        for _, size, container in rows:
            if total <= self._max_bytes:
                return
            if container.held_lines() == 0 and self.take(container, why):
                total -= size
            else:
                kept.append((size, container))
        for size, container in kept:
            if total > self._max_bytes and self.take(container, why):
                total -= size

    def _bury(self, directory: Path, counters: Counters | None) -> None:
        """Count a directory that is on its way out, once, and delete it."""
        totals, last = _load(self._state / _TOTALS)
        if last != directory.name:
            _save(self._state / _TOTALS, totals + _leaving(directory, counters), directory.name)
        shutil.rmtree(directory)


def removed_lines(plugins: Path) -> RemovedLines:
    """The lines of all removed containers of all plugins; ``plugins`` holds a directory for each.

    One that is being removed meanwhile is counted all the time, and once. A file that cannot be read is logged and
    passed over.
    """
    found = RemovedLines()
    for state in sorted(plugins.iterdir()) if plugins.is_dir() else ():
        found = sum(_each(state), found)
    return found


def _each(state: Path) -> Iterator[RemovedLines]:
    path = state / _TOTALS
    read_totals = partial(_try, partial(_load, path), (RemovedLines(), ""), path)
    for _ in range(_READS):
        totals, last = counted = read_totals()
        # By name: one may be on its way from the first place to the second, and from there into the totals.
        waiting = {
            mark.parent.name: _try(partial(_waiting, mark.parent), RemovedLines(), mark.parent)
            for mark in state.glob(f"containers/*/{REMOVED_MARK}")
        }
        for directory in state.glob(f"{_LEAVING}/*"):
            counters = _try(partial(_counters_in, directory), None, directory)
            waiting[directory.name] = _leaving(directory, counters)
        if read_totals() == counted:
            break
    yield totals
    yield from (lines for name, lines in waiting.items() if name != last)


def _try(read: Callable[[], _T], otherwise: _T, what: Path) -> _T:
    try:
        return read()
    except (OSError, ValueError) as error:
        log.warning("read how many lines of removed containers %s counts: %s", what, error)
        return otherwise


def _leaving(directory: Path, counters: Counters | None) -> RemovedLines:
    """What a directory that is on its way out has counted: nothing of it is held any more."""
    counters = with_dropped(counters or Counters(), directory / "log")
    dropped = Counter(counters.dropped) + Counter({BUDGET: counters.held})
    return RemovedLines(counters.written, counters.delivered, 0, dropped)


def _waiting(directory: Path) -> RemovedLines:
    counters = _counters_in(directory)
    if counters is None:
        return RemovedLines()
    counters = with_dropped(counters, directory / "log")
    return RemovedLines(counters.written, counters.delivered, counters.held, Counter(counters.dropped))


def _counters_in(directory: Path) -> Counters | None:
    """What a delivery noted in a container's directory; None if there was none."""
    try:
        return read_counters(directory / "log" / STATE_NAME)
    except FileNotFoundError:
        return None


def _load(path: Path) -> tuple[RemovedLines, str]:
    """The totals, and which directory was counted last. Raises OSError, ValueError."""
    try:
        value = orjson.loads(path.read_bytes())
        dropped = Counter({str(cause): int(lines) for cause, lines in value["dropped"].items()})
        return RemovedLines(int(value["written"]), int(value["delivered"]), 0, dropped), str(value["last"])
    except FileNotFoundError:
        return RemovedLines(), ""
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not the counts of removed containers: {error!r}") from error


def _save(path: Path, totals: RemovedLines, last: str) -> None:
    new = path.with_suffix(".new")
    values = {
        "written": totals.written,
        "delivered": totals.delivered,
        "dropped": totals.dropped,
        "last": last,
    }
    new.write_bytes(orjson.dumps(values))
    os.chmod(new, 0o640)  # noqa: PTH101
    new.replace(path)


def _size(directory: Path) -> int:
    """Bytes of all files under a directory."""
    total = 0
    for root, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size  # noqa: PTH118 a stat per file, no more
            except FileNotFoundError:
                continue
    return total
