"""The history on disk: both resolutions under one limit, minutes made from ten-second steps.

Whoever records hands over a step's rows; whoever asks gets rows back. One lock: a question may hold up the
recorder for some milliseconds, never the sampler.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from collector.clock_trust import ClockTrust
from collector.history.rows import AT, ROW_BYTES, TOTALS, Definition, Packed, Row, times, unpack
from collector.history.steps import coarser
from collector.history.tier import MINUTES, TENS, Losses, Resolution, Tier

if TYPE_CHECKING:
    from collector.history.rows import Rows

__all__ = ["Archive", "Held", "Last"]

#: A growing window is sealed early when it takes this part of the limit.
_RAW_SHARE = 8
#: And when so many containers more than now run have come and gone in it: their names are in memory meanwhile.
_MOST_GONE = 8192


@dataclass(frozen=True, slots=True)
class Held:
    """A container there are rows of."""

    id: str
    name: str
    image: str
    engine: str
    first_us: int  #: of its rows
    last_us: int


@dataclass(frozen=True, slots=True)
class Last:
    """Where a container's rows had come to when they were last written."""

    number: int
    totals: tuple[int, ...]  #: in the order of ``COUNTERS``
    time_us: int


class Archive:
    """The files in one directory, owned by one process (the log store's lock keeps a second agent away)."""

    def __init__(
        self,
        directory: Path,
        max_bytes: int = 256 << 20,
        resolutions: tuple[Resolution, Resolution] = (TENS, MINUTES),
        clock: ClockTrust | None = None,
    ) -> None:
        """Open what is there, repaired. ``clock`` says whether age may take anything. Raises OSError."""
        self.max_bytes = max_bytes
        self.losses = Losses()
        self.rows_written = 0
        self._lock = threading.RLock()
        self.fine = Tier(directory, resolutions[0], self.losses)
        self.coarse = Tier(directory, resolutions[1], self.losses)
        self._definitions: dict[int, Definition] = {}
        self._next = max(self.fine.last_number, self.coarse.last_number) + 1
        self._minute_us = -1
        self._step_us = 0  # of the newest step
        self._minute = bytearray()  # its packed rows, in the order written
        self._ending: set[int] = set()
        self._clock = clock or ClockTrust()
        self._closed = False
        self._replay()

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return self.fine.bytes + self.coarse.bytes

    # --- writing -------------------------------------------------------------------------------------

    def number(self) -> int:
        """A number nobody has had."""
        with self._lock:
            self._next += 1
            return self._next - 1

    def define(self, definition: Definition) -> None:
        """Say whose rows a number's are, before the first is written and when the name has changed."""
        with self._lock:
            before = self._definitions.get(definition.number)
            self._definitions[definition.number] = definition
            if before is not None and before != definition:
                self.fine.renamed.add(definition.number)
                self.coarse.renamed.add(definition.number)

    def forget(self, number: int) -> None:
        """Nothing more will be written for a number (what was, stays)."""
        with self._lock:
            self._ending.add(number)  # once its last minute is written

    def append(self, step_us: int, rows: Packed, now_ns: int | None = None) -> None:
        """Write a step's rows, ordered by number; and the minute before, when this is the next one's first step."""
        with self._lock:
            if self._closed:
                return
            self._turn_minute(step_us)
            self.fine.append(step_us, rows, self._definition)
            self._minute += rows
            self.rows_written += len(rows) // ROW_BYTES
            self._limit(time.time_ns() if now_ns is None else now_ns)

    def _definition(self, number: int) -> Definition:
        return self._definitions.get(number) or Definition(number, "", "", "", "")

    def _turn_minute(self, step_us: int) -> None:
        minute_us = step_us - step_us % (self.coarse.resolution.step * 1_000_000)
        set_back = step_us < self._step_us  # growth across that is not known: it must not vanish within a row
        self._step_us = step_us
        if minute_us == self._minute_us and not set_back:
            return
        if self._minute:
            rows = coarser(self._minute)
            self.coarse.append(self._minute_us, rows, self._definition)
            self.rows_written += len(rows) // ROW_BYTES
        self._minute = bytearray()
        self._minute_us = minute_us
        for number in self._ending:
            self._definitions.pop(number, None)
        self._ending.clear()

    def _limit(self, now_ns: int) -> None:
        """Remove what is too old, then what is too much, the oldest first."""
        if self._clock.trusts(now_ns):
            for tier in (self.fine, self.coarse):
                tier.expire(now_ns // 1000)
        for tier in (self.fine, self.coarse):
            raw = tier.raw
            if raw is None or not raw.frames:
                continue
            gone = len(raw.definitions) - raw.frames[-1].rows
            if raw.bytes > self.max_bytes // _RAW_SHARE or gone > _MOST_GONE:
                tier.try_to_roll()
        while self.bytes > self.max_bytes:
            oldest = [(tier.oldest, tier) for tier in (self.fine, self.coarse)]
            full = [(window, tier) for window, tier in oldest if window is not None]
            if not full:
                break
            window, tier = min(full, key=lambda one: one[0].last_us)
            tier.remove(window, "size")

    # --- reading -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Several questions about one state."""
        with self._lock:
            yield

    def series(self, coarse: bool, container_id: str, since_us: int, until_us: int) -> Rows:
        """One container's rows of one resolution with times in the range, in the order written."""
        with self._lock:
            return (self.coarse if coarse else self.fine).series(container_id, since_us, until_us)

    def between(self, coarse: bool, since_us: int, until_us: int) -> tuple[Rows, dict[int, Definition]]:
        """All containers' rows with times in the range, in the order written, and whose they are."""
        with self._lock:
            return (self.coarse if coarse else self.fine).between(since_us, until_us)

    def held(self, since_us: int, until_us: int) -> dict[str, Held]:
        """Every container with rows in windows that touch the range, by id, with its newest name."""
        found: dict[str, Held] = {}
        with self._lock:
            for tier in (self.coarse, self.fine):
                for window in tier.windows():
                    if window.rows == 0 or window.last_us < since_us or window.first_us > until_us:
                        continue
                    for one, first_us, last_us in tier.spans(window):
                        before = found.get(one.id)
                        if before is not None:
                            first_us = min(first_us, before.first_us)
                        if before is None or last_us >= before.last_us:
                            found[one.id] = Held(one.id, one.name, one.image, one.engine, first_us, last_us)
                        else:
                            found[one.id] = Held(*_texts(before), first_us, before.last_us)
        return found

    def find(self, key: str) -> Held | None:
        """The newest container with this id, name or unambiguous beginning of an id; windows from the newest back."""
        name = key.removeprefix("/")
        prefixed: dict[str, Held] = {}
        with self._lock:
            for tier in (self.fine, self.coarse):
                for window in reversed(tier.windows()):
                    best: Held | None = None
                    for one, first_us, last_us in tier.definitions(window):
                        held = Held(one.id, one.name, one.image, one.engine, first_us, last_us)
                        if one.id == key:
                            return held
                        if one.name == name and (best is None or last_us >= best.last_us):
                            best = held
                        if len(key) >= 4 and one.id.startswith(key):
                            prefixed.setdefault(one.id, held)
                    if best is not None:
                        return best
        return next(iter(prefixed.values())) if len(prefixed) == 1 else None

    # --- opening and closing -------------------------------------------------------------------------

    def last(self) -> dict[str, Last]:
        """Where containers had come to in the newest two windows, by id: a recorder goes on there."""
        found: dict[str, Last] = {}
        with self._lock:
            if self.fine.sealed:
                for packed, definitions in self.fine.packed_since(self.fine.sealed[-1].first_us):
                    for row in unpack(packed):
                        found[definitions[row[AT["number"]]].id] = _last(row)
            if self.fine.raw is not None:
                for definition, own in self.fine.raw.grouped(16):
                    found[definition.id] = _last(next(unpack(own[-ROW_BYTES:])))
        return found

    def _replay(self) -> None:
        """Gather the minute that was not over, and write those that were not, when the process before ended."""
        if self.fine.raw is not None:
            self._definitions.update(self.fine.raw.definitions)
        step = self.coarse.resolution.step * 1_000_000
        newest = [window.last_us for window in self.coarse.windows() if window.rows]
        since = (max(newest) // step + 1) * step if newest else 0
        minutes: defaultdict[int, bytearray] = defaultdict(bytearray)
        mentioned: dict[int, Definition] = {}
        for packed, definitions in self.fine.packed_since(since):
            mentioned.update(definitions)
            for index, time_us in enumerate(times(packed)):
                if time_us >= since:
                    minutes[time_us // step] += packed[index * ROW_BYTES : (index + 1) * ROW_BYTES]
        self._definitions.update(mentioned)
        for minute, rows in sorted(minutes.items()):
            self._turn_minute(minute * step)
            self._minute += rows
        self._ending.update(
            n for n in mentioned if self.fine.raw is None or n not in self.fine.raw.definitions
        )

    def close(self) -> None:
        """Give the descriptors back. The unfinished minute is made from its steps at the next opening."""
        with self._lock:
            self._closed = True
            self.fine.close()
            self.coarse.close()


def _last(row: Row) -> Last:
    return Last(row[AT["number"]], row[TOTALS], row[AT["time_us"]])


def _texts(held: Held) -> tuple[str, str, str, str]:
    return held.id, held.name, held.image, held.engine
