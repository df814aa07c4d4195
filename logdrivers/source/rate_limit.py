"""A container's rate limit: how many bytes may pass now, and the durable count of what was dropped.

A token bucket, in source bytes. Dropped lines are counted in ``source.state`` beside the journal, together with
the place in the stream up to which they are counted, so that kill -9 neither loses a count nor doubles it. What
is cut where, and the marker line that stands for dropped ones, is the copier's business.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from logdrivers.block import Block, Encoding, Stream
from logdrivers.delivery import Counters
from logdrivers.source.options import RateLimit
from logdrivers.statefile import StateFile, read_state

__all__ = [
    "CAUSE",
    "SOURCE_STATE_NAME",
    "Bucket",
    "DropCounter",
    "Dropped",
    "RemovedDrops",
    "marker",
    "read_dropped",
    "with_dropped",
]

log = logging.getLogger(__name__)

#: The ``cause`` of these drops at /metrics.
CAUSE = "rate_limit"
#: Name of the state file in the container's log directory.
SOURCE_STATE_NAME = "source.state"
_FIELDS = "QQQQ"  # lines, bytes, the places in stdout and stderr up to which they are counted


class Bucket:
    """Bytes that may pass: ``burst_bytes`` at first, refilled at the rate. Times are monotonic seconds."""

    def __init__(self, limit: RateLimit) -> None:
        self._rate = float(limit.bytes_per_second)
        self._burst = float(limit.burst_bytes)
        self._tokens = self._burst
        self._at = 0.0

    def allowance(self, now: float) -> int:
        """Bytes that may pass now; below zero after a line that was larger than what was left."""
        if self._at:
            self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now
        return int(self._tokens)

    @property
    def full(self) -> bool:
        """Whether nothing is missing, as of the last ``allowance``: then a line of any length may pass."""
        return self._tokens >= self._burst

    def spend(self, size: int) -> None:
        """So many bytes passed."""
        self._tokens -= size

    def seconds_to(self, tokens: float) -> float:
        """How long until so many bytes may pass, or as many as ever."""
        return max(0.0, (min(tokens, self._burst) - self._tokens) / self._rate)

    def seconds_to_full(self) -> float:
        """How long until the bucket is full."""
        return self.seconds_to(self._burst)


@dataclass(frozen=True, slots=True)
class Dropped:
    """What was dropped since the container was made."""

    lines: int = 0
    bytes: int = 0


class DropCounter:
    """The count of one container, kept at ``path``. Raises OSError, ValueError if that is no such file."""

    def __init__(self, path: Path) -> None:
        self._state = StateFile(path, _FIELDS)

    def count(self, stream: Stream, lines: int, begin: int, end: int) -> None:
        """Count the bytes ``[begin, end)`` of a stream as so many dropped lines, once."""
        total, size, out, err = self._state.values or (0, 0, 0, 0)
        counted = out if stream is Stream.STDOUT else err
        if counted == end:
            return
        out, err = (end, err) if stream is Stream.STDOUT else (out, end)
        self._state.write(total + lines, size + end - begin, out, err)

    @property
    def dropped(self) -> Dropped:
        """All of it."""
        lines, size, *_ = self._state.values or (0, 0)
        return Dropped(lines, size)

    def close(self) -> None:
        """Close the file."""
        self._state.close()


class RemovedDrops:
    """The lines dropped of containers that are gone, kept in one file. Thread-safe; one process writes it."""

    _FIELDS = "Q32s"  # lines, the container counted last: a removal that a kill cut short is repeated

    def __init__(self, path: Path) -> None:
        """Raises OSError, ValueError if that is no such file."""
        self._state = StateFile(path, self._FIELDS)
        self._lock = threading.Lock()

    def take(self, container_id: str, directory: Path) -> None:
        """The container with this log directory is about to go, directory and all: keep its count."""
        try:
            lines = read_dropped(directory).lines
        except (OSError, ValueError) as error:
            log.error("read how much of removed container %s was dropped: %s", container_id[:12], error)
            return
        if not lines:
            return
        who = container_id[:32].encode().ljust(32, b"\0")
        with self._lock:
            total, last = self._state.values or (0, b"")
            if last != who:
                self._state.write(total + lines, who)

    @classmethod
    def read(cls, path: Path) -> int:
        """The lines, told by whichever process keeps the file; 0 if there is none. Raises OSError, ValueError."""
        try:
            values = read_state(path, cls._FIELDS)
        except FileNotFoundError:
            return 0
        return int(values[0]) if values else 0

    def close(self) -> None:
        """Close the file."""
        self._state.close()


def read_dropped(directory: Path) -> Dropped:
    """What was dropped of the container with this log directory, told by whoever counted it last.

    Raises OSError, ValueError if the file is not one of these.
    """
    try:
        values = read_state(directory / SOURCE_STATE_NAME, _FIELDS)
    except FileNotFoundError:
        return Dropped()
    return Dropped(*values[:2]) if values else Dropped()


def with_dropped(counters: Counters, directory: Path) -> Counters:
    """``counters`` of the container with this log directory and what was dropped before its journal.

    Those lines count as written, and as dropped. A count that cannot be read is logged and left out.
    """
    try:
        lines = read_dropped(directory).lines
    except (OSError, ValueError) as error:
        log.warning("read how many lines were dropped from %s: %s", directory, error)
        return counters
    if not lines:
        return counters
    return replace(counters, written=counters.written + lines, dropped={**counters.dropped, CAUSE: lines})


def marker(stream: Stream, time_ns: int, lines: int, size: int, limit: RateLimit) -> Block:
    """The line that stands in the journal for dropped ones."""
    text = (
        f"taffrail: {lines} lines ({size} bytes) dropped: over rate-limit {limit.bytes_per_second} bytes/s\n"
    )
    return Block(text.encode(), Encoding.LINES, stream, time_ns, time_ns, 1)
