"""The loop every log exporter runs: next batch, deliver, commit, in a thread of its own.

The cursor moves only after ``deliver`` returned, which means that the sink has answered for every line.
What delivering is, and which failures it can meet, is left to the exporter.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

from collector.in_thread import run_in_thread
from collector.sink import Cursor, StoredBatch

__all__ = ["Backoff", "CursorLoop", "LoopCounters", "Stopped"]

log = logging.getLogger(__name__)


class Stopped(Exception):
    """The exporter was told to stop; what is not committed is delivered after the next start."""


class Backoff:
    """Pauses that double, with jitter, and end at once when the exporter is stopped."""

    def __init__(self, stop: threading.Event, first_seconds: float, longest_seconds: float) -> None:
        self._stop = stop
        self._first = first_seconds
        self._longest = longest_seconds
        self._next = first_seconds

    def pause(self) -> None:
        """Wait between half and the whole of the next pause. Raises Stopped."""
        seconds = self._next * random.uniform(0.5, 1.0)
        self._next = min(self._next * 2, self._longest)
        if self._stop.wait(seconds):
            raise Stopped

    def reset(self) -> None:
        """The next pause is the first again."""
        self._next = self._first


@dataclass(slots=True)
class LoopCounters:
    """What the loop has moved past since it was made."""

    lines: int = 0
    batches: int = 0
    retention_lost_lines: int = 0  #: removed by the store's retention before they were delivered
    store_errors: int = 0


class CursorLoop:
    """Runs ``deliver`` on batch after batch.

    ``deliver`` blocks until the sink has answered for all lines of the batch and raises Stopped once
    ``stop`` is set. The cursor is used by the loop's thread alone.
    """

    def __init__(
        self,
        name: str,
        cursor: Cursor,
        deliver: Callable[[StoredBatch], None],
        stop: threading.Event,
        batch_bytes: int = 1 << 20,
    ) -> None:
        self.counters = LoopCounters()
        self._name = name
        self._cursor = cursor
        self._deliver = deliver
        self._stop = stop
        self._batch_bytes = batch_bytes

    async def run(self, interrupt: Callable[[], None]) -> None:
        """Run in a thread until cancelled; ``interrupt`` must make a delivery under way end soon."""

        def stop() -> None:
            self._stop.set()
            interrupt()

        await run_in_thread(self._name, self.run_forever, stop)

    def run_forever(self) -> None:
        """Run in this thread until ``stop`` is set."""
        try:
            idle = Backoff(self._stop, 0.05, 1.0)
            failing = Backoff(self._stop, 0.5, 30.0)
            while not self._stop.is_set():
                if self._step(failing):
                    idle.reset()
                else:
                    idle.pause()
        except Stopped:
            log.debug("%s: stopped", self._name)

    def _step(self, failing: Backoff) -> bool:
        try:
            batch = self._cursor.next(self._batch_bytes)
        except OSError as error:
            self._count_store_error("reading the next batch", error)
            failing.pause()
            return True
        if batch.lost_lines:
            self.counters.retention_lost_lines += batch.lost_lines
            log.warning(
                "%s: retention removed %d lines before they were delivered", self._name, batch.lost_lines
            )
        if not batch.blocks:
            failing.reset()
            return False
        self._deliver(batch)
        self._commit(batch, failing)
        return True

    def _commit(self, batch: StoredBatch, failing: Backoff) -> None:
        while True:
            try:
                self._cursor.commit(batch.token)
            except OSError as error:
                self._count_store_error("moving the cursor", error)
                failing.pause()
                continue
            failing.reset()
            self.counters.lines += sum(stored.block.lines for stored in batch.blocks)
            self.counters.batches += 1
            return

    def _count_store_error(self, attempt: str, error: OSError) -> None:
        self.counters.store_errors += 1
        log.error("%s: %s in the store failed, trying again: %s", self._name, attempt, error)
