"""Carries blocks from a journal to a sink: the part of every driver that retries, remembers and counts.

The journal is the queue. A cursor beside it moves when the sink has taken a batch, and survives kill -9;
what the writer has just appended is also handed over in memory, so a sink that keeps up costs no reading.
Always: written = delivered + held + the sum of dropped, in lines. A sink that is down costs nothing but
room in the journal; when retention has to take lines it had not sent, they are dropped by its cause, and a
marker message, which is in none of these numbers, stands in their place.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from logdrivers.delivery_state import (
    OLDER_FIELDS,
    STATE_FIELDS,
    STATE_NAME,
    Counters,
    DeliveryState,
    read_counters,
)
from logdrivers.driver import EMPTY_LINE, Rejected, Sink, SinkDown
from logdrivers.journal import Entry, JournalReader, Position
from logdrivers.journals.files import journal_directory
from logdrivers.journals.gaps import lost_by_cause, marker
from logdrivers.journals.reader_cursors import DELIVERY, ReaderCursor
from logdrivers.statefile import StateFile

__all__ = ["STATE_NAME", "Counters", "Delivery", "read_counters"]

log = logging.getLogger(__name__)

_BATCH_BYTES = 1 << 20
_MEMORY_BYTES = 4 << 20
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0
_IDLE_SECONDS = 30.0


def _end_line(entry: Entry) -> int:
    return entry.first_line + entry.block.lines


def _up_to_gap(entries: Sequence[Entry]) -> list[Entry]:
    """The entries before the first missing line."""
    for place in range(1, len(entries)):
        if entries[place].first_line > _end_line(entries[place - 1]):
            return list(entries[:place])
    return list(entries)


class Delivery:
    """One journal to one sink, in a thread of its own. ``name`` stands in log messages and the thread's name."""

    def __init__(self, reader: JournalReader, sink: Sink, state: Path, name: str) -> None:
        """Raises OSError if the state file cannot be made, ValueError if it is unusable and nothing else helps.

        A journal of segments beside the state file holds what this delivery has not taken.
        """
        self._reader, self._sink, self._name = reader, sink, name
        journal = journal_directory(state.parent)
        self._cursor = ReaderCursor(journal, DELIVERY) if journal.is_dir() else None
        self._file, self._state = self._open_state(state)
        self._find_place()
        self._offered: deque[Entry] = deque()
        self._offered_bytes = 0
        self._ahead = self._state.line  # the line behind what is being sent
        self._changed = threading.Condition()
        self._news = self._look = True
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"delivery {name}", daemon=True)
        self._save()

    def _open_state(self, path: Path) -> tuple[StateFile, DeliveryState]:
        """The state file; if it is damaged, the cursor in the journal says where to go on."""
        try:
            file = StateFile(path, STATE_FIELDS, OLDER_FIELDS)
            return file, DeliveryState() if file.values is None else DeliveryState.parse(file.values)
        except ValueError as error:
            if self._cursor is None:
                raise
            log.error("the counts of %s begin anew from its cursor: %s", self._name, error)
        path.replace(path.with_name(f"{path.name}.damaged"))
        line = self._cursor.line
        # Without a place it goes on from the first line: rather twice than never.
        position = self._cursor.position if line else None
        return StateFile(path, STATE_FIELDS), DeliveryState(position, line, line, line)

    def _find_place(self) -> None:
        """Compare the state with the journal, of which a power cut may have taken the end."""
        state, end, end_line = self._state, self._reader.end(), self._reader.end_line()
        if state.position is not None and state.position > end and state.line > end_line:
            log.error("the journal of %s lacks its last %d lines: the sink has them", self._name,
                      state.line - end_line)  # fmt: skip
            state.delivered = max(0, state.delivered - (state.line - end_line))
            state.position, state.line = end, end_line
        state.written = max(state.line, end_line)
        self._move_cursor()

    def _move_cursor(self) -> None:
        if self._cursor is not None and self._state.position is not None:
            self._cursor.move(self._state.position, self._state.line)

    def start(self) -> None:
        """Begin where the cursor is."""
        self._thread.start()

    def offer(self, *entries: Entry) -> None:
        """Hand over what was just appended; never waits. What does not fit is read from the journal."""
        with self._changed:
            for entry in entries:
                follows = self._offered_end() == entry.first_line
                if follows and self._offered_bytes < _MEMORY_BYTES:
                    self._offered.append(entry)
                    self._offered_bytes += len(entry.block.data)
                self._state.written = entry.first_line + entry.block.lines
            self._save()
            self._news = True
            self._changed.notify()

    def wake(self) -> None:
        """Something may be new in the journal that was not offered."""
        with self._changed:
            self._news = self._look = True
            self._changed.notify()

    def caught_up(self) -> bool:
        """Whether the sink has answered for everything that was written."""
        with self._changed:
            return self._state.counters().held == 0

    def counters(self) -> Counters:
        """How it stands; the same that ``read_counters`` tells other processes."""
        with self._changed:
            return self._state.counters()

    def finish(self) -> None:
        """Begin no further batch; the one on its way may still be taken. The rest stays held; never waits."""
        with self._changed:
            self._deadline = time.monotonic()
            self._changed.notify()

    def over(self) -> bool:
        """Whether nothing is on its way to the sink any more, nor will be."""
        return not self._thread.is_alive()

    def stop(self, drain_seconds: float = 0.0) -> None:
        """Deliver what is left for so long at most, then give the connection up. The rest stays held."""
        with self._changed:
            self._deadline = time.monotonic() + drain_seconds
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(drain_seconds + 0.5)
        self._sink.close()  # breaks a send that still waits
        if self._thread.ident is not None:
            self._thread.join(5.0)
        if self._thread.is_alive():
            log.warning("delivery to %s did not end: its sink ignores its deadline", self._name)
            return
        self._file.close()
        if self._cursor is not None:
            self._cursor.close()
        self._reader.close()

    # --- the thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._over():
            try:
                entries = self._next()
                if entries:
                    self._mark(entries[0].block.first_ns)
                    self._send(entries)
                    pause = _FIRST_PAUSE
                elif self._all_lost():
                    self._mark(time.time_ns())
                elif self._idle():
                    return
            except SinkDown as error:
                self._failed(str(error))
                self._wait(pause * random.uniform(0.75, 1.25))
                pause = min(pause * 2, _LONGEST_PAUSE)
            except Exception as error:  # a sink's or journal's fault: nothing is lost, it is tried again
                log.exception("delivery to %s failed", self._name)
                self._failed(f"{type(error).__name__}: {error}")
                self._wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _over(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _next(self) -> list[Entry]:
        """The entries behind the cursor: what was offered if it follows, else what the journal holds."""
        with self._changed:
            look, self._look = self._look or self._state.line < self._state.written, False
            self._news = False
            self._ahead = self._state.line
            if self._offered and self._offered[0].first_line == self._state.line:
                return self._take_offered()
            self._offered.clear()
            self._offered_bytes = 0
            position = self._state.position
        if not look:
            return []
        entries = self._read(position)
        if not entries:
            # What is written by now and not found after that has been removed, and nothing follows it.
            end_line = self._reader.end_line()
            entries = self._read(position)
            if not entries and end_line > self._state.line:
                self._lost(end_line)
        if entries and entries[0].first_line > self._state.line:
            self._lost(entries[0].first_line)
        if entries:
            with self._changed:
                self._ahead = _end_line(entries[-1])
        return entries

    def _read(self, position: Position | None) -> list[Entry]:
        return _up_to_gap(self._reader.read(position or self._reader.first(), _BATCH_BYTES).entries)

    def _all_lost(self) -> bool:
        """Whether nothing follows lines that were lost, and the sink has not been told."""
        with self._changed:
            return bool(self._state.unmarked) and self._state.line >= self._state.written

    def _take_offered(self) -> list[Entry]:
        entries: list[Entry] = []
        size = 0
        while self._offered and size < _BATCH_BYTES:
            entry = self._offered.popleft()
            entries.append(entry)
            size += len(entry.block.data)
        self._offered_bytes -= size
        self._ahead = _end_line(entries[-1])
        return entries

    def _offered_end(self) -> int:
        """The line at which an offered entry would follow."""
        if self._offered:
            return _end_line(self._offered[-1])
        return self._ahead

    def _send(self, entries: list[Entry]) -> None:
        lines = sum(entry.block.lines for entry in entries)
        rejected = 0
        try:
            self._sink.send([entry.block for entry in entries])
        except Rejected as refusal:
            rejected = self._refused(refusal, lines)
        with self._changed:
            state = self._state
            if not state.up:
                log.info("%s takes lines again", self._name)
            last = entries[-1]
            state.position, state.line = last.end, _end_line(last)
            state.delivered += lines - rejected
            state.written = max(state.written, state.line)
            state.up, state.error = True, ""
            self._save()
            self._move_cursor()

    def _mark(self, time_ns: int) -> None:
        """Tell the sink of what it will not get. The markers are by themselves, so that each goes out once."""
        for cause, lines in tuple(self._state.unmarked.items()):
            try:
                self._sink.send([marker(cause, lines, time_ns)])
            except Rejected as refusal:
                log.warning("%s refused to be told of %d lines lost: %s", self._name, lines, refusal)
            with self._changed:
                self._state.told(cause)
                self._state.up, self._state.error = True, ""
                self._save()

    def _refused(self, refusal: Rejected, lines: int) -> int:
        """Count what the sink will never take of so many lines; how many they are."""
        left = lines
        for cause, count in refusal.causes.items():
            dropped = min(count, left)
            left -= dropped
            # Nothing was said in an empty line, so there is nothing to be warned of.
            level = logging.DEBUG if cause == EMPTY_LINE else logging.WARNING
            log.log(level, "%s refused %d lines for good: %s", self._name, dropped, cause)
            with self._changed:
                self._state.drop(cause, dropped)
        return lines - left

    def _lost(self, end_line: int) -> None:
        """The lines from the cursor's to ``end_line`` are not in the journal."""
        for cause, lines in lost_by_cause(self._reader, self._state.line, end_line).items():
            log.error("%d lines for %s are not in the journal any more: %s", lines, self._name, cause)
            with self._changed:
                self._state.lose(cause, lines)
                self._save()

    def _failed(self, text: str) -> None:
        with self._changed:
            if self._state.up:
                log.warning("%s does not take lines, they are kept: %s", self._name, text)
            self._state.up, self._state.error = False, text
            self._save()

    def _idle(self) -> bool:
        """Wait for news; true when there will be none and it was told to stop."""
        with self._changed:
            if self._deadline is not None and not self._news:
                return True
            if not self._news:
                self._changed.wait(_IDLE_SECONDS)
            return False

    def _wait(self, seconds: float) -> None:
        """Pause after a failure; the end of the drain time ends it."""
        until = time.monotonic() + seconds
        with self._changed:
            while (left := until - time.monotonic()) > 0 and not self._over():
                if self._deadline is not None:
                    left = min(left, max(self._deadline - time.monotonic(), 0.001))
                self._changed.wait(left)

    def _save(self) -> None:
        self._file.write(*self._state.values())
