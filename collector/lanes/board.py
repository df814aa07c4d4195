"""The newest readings of every container, by group: lanes write them, the exposition and others read them.

Keys (family and labels) are kept apart from values and are the same object as long as nothing but values
changes, so that whoever renders labels can tell by identity that there is nothing to render.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["Board", "Key", "Reading", "Record"]


class Reading(NamedTuple):
    """One series of a slow group at one moment."""

    family: str  #: the name of a row in ``exporters/prometheus/families.py``, source ``lane``
    labels: tuple[tuple[str, str], ...]  #: besides the container's own, in the order they are shown
    value: float


#: A series of a container: its family and labels.
Key = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class Record:
    """What a group read of one container the last time."""

    keys: tuple[Key, ...]  #: the same object as before while the set of series is the same
    values: tuple[float, ...]
    time: float  #: ``time.monotonic`` of the reading


_key_of: Callable[[Reading], Key] = itemgetter(0, 1)
_value_of: Callable[[Reading], float] = itemgetter(2)

_NOTHING: Mapping[str, Record] = MappingProxyType({})


class Board:
    """Records by container and group. Safe to use from any thread."""

    def __init__(self, keep_seconds: float = 300.0) -> None:
        """``keep_seconds``: how long an ended container's readings stay."""
        self._keep = keep_seconds
        self._ended: dict[str, float] = {}
        self._lock = threading.Lock()
        self._records: dict[str, dict[str, Record]] = {}
        self._keys: dict[str, tuple[Key, ...]] = {}  # a group's last set, which most containers share

    def put(
        self, container_id: str, group: str, readings: Sequence[Reading], now: float | None = None
    ) -> None:
        """Put a group's readings in the place of its last ones. ``now`` is ``time.monotonic``'s."""
        keys = tuple(map(_key_of, readings))
        values = tuple(map(_value_of, readings))
        now = time.monotonic() if now is None else now
        with self._lock:
            records = self._records.get(container_id, {})
            last = records.get(group)
            if last is not None and last.keys == keys:
                keys = last.keys
            elif self._keys.get(group) == keys:
                keys = self._keys[group]
            self._keys[group] = keys
            self._ended.pop(container_id, None)
            # A new dictionary: readers hold the old one while they go through it.
            self._records[container_id] = records | {group: Record(keys, values, now)}

    def drop(self, container_id: str, group: str) -> None:
        """Take a group's readings of a container away: they are not true any more."""
        with self._lock:
            records = self._records.get(container_id)
            if records is not None and group in records:
                self._records[container_id] = {name: kept for name, kept in records.items() if name != group}

    def ended(self, container_id: str) -> None:
        """The container has ended: its last readings stay as long as its tombstone, unless it starts again."""
        with self._lock:
            if container_id in self._records:
                self._ended[container_id] = time.monotonic()

    def expire(self) -> None:
        """Let go of containers whose tombstone is over."""
        if not self._ended:
            return
        with self._lock:
            oldest = time.monotonic() - self._keep
            for container_id in [key for key, when in self._ended.items() if when < oldest]:
                del self._ended[container_id]
                self._records.pop(container_id, None)

    def of(self, container_id: str) -> Mapping[str, Record]:
        """A container's records by group; not changed later, a newer state is a new mapping."""
        return self._records.get(container_id, _NOTHING)

    def value(self, container_id: str, family: str, **labels: str) -> float | None:
        """One reading by its family and labels, or None where there is none."""
        wanted = (family, tuple(labels.items()))
        for record in self.of(container_id).values():
            for key, value in zip(record.keys, record.values, strict=True):
                if key == wanted:
                    return value
        return None
