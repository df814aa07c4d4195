"""A log of steps on disk, bounded in time and in bytes: for history that is a list of things and no row of numbers.

Windows of files as ``tier.py`` has them, the newest growing by an append a step, the others sealed: their steps
compressed together. What a step holds is for whoever writes it. Safe to use from any thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from collector.clock_trust import ClockTrust
from collector.history.step_frames import (
    HEADER_BYTES,
    BadFrame,
    Step,
    decode,
    encode,
    find_frame,
    parse_header,
)
from collector.history.window_files import find_windows, whole_file, write_frame

__all__ = ["StepLog", "StepLosses"]

log = logging.getLogger(__name__)

#: A growing window is sealed early when it takes this part of the limit.
_SHARE = 8
#: Steps that a sealed frame holds at most, and bytes of them before they are compressed.
_TOGETHER, _TOGETHER_BYTES = 32, 1 << 20
_GROWING_LEVEL, _SEALED_LEVEL = 3, 9


@dataclass(slots=True)
class StepLosses:
    """What was lost or taken since the log was opened, by cause."""

    steps: Counter[str] = field(default_factory=Counter)  #: that could not be written
    removed_steps: Counter[str] = field(default_factory=Counter)  #: by ``age``, ``size``
    torn_bytes: int = 0  #: of writes that a crash cut short
    damaged: int = 0  #: frames and stretches of files whose bytes are not what was written


@dataclass(slots=True)
class _Window:
    """One file."""

    path: Path
    sequence: int
    bytes: int = 0
    steps: int = 0
    first_us: int = 0
    last_us: int = 0

    def note(self, steps: int, first_us: int, last_us: int) -> None:
        self.first_us = min(self.first_us, first_us) if self.steps else first_us
        self.last_us = max(self.last_us, last_us)
        self.steps += steps


class StepLog:
    """The windows of one kind of step in a directory of its own."""

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        keep: int,
        window: int,
        max_bytes: int,
        clock: ClockTrust | None = None,
    ) -> None:
        """``keep``: seconds a step is kept; ``window``: seconds a file goes on. Opens what is there, repaired.

        ``clock`` says whether age may take anything. Raises OSError.
        """
        self.losses = StepLosses()
        self.steps_written = 0
        self.keep = keep
        self._directory, self._name = directory, name
        self._window_us = window * 1_000_000
        self._max_bytes = max_bytes
        self._clock = clock or ClockTrust()
        self._lock = threading.RLock()
        self._sealed: list[_Window] = []
        self._growing: _Window | None = None
        self._began_us = 0  # the growing window's first step
        self._whole_due = True  # what the writer knew is not known any more
        self._fd = -1
        self._sequence = 0
        directory.mkdir(parents=True, exist_ok=True)
        self._open()

    @property
    def disk_bytes(self) -> int:
        """Bytes on disk."""
        with self._lock:
            return sum(window.bytes for window in self._windows())

    @property
    def steps(self) -> int:
        """Steps on disk."""
        with self._lock:
            return sum(window.steps for window in self._windows())

    @property
    def first_us(self) -> int:
        """Time of the oldest step; 0 without any."""
        with self._lock:
            return min((window.first_us for window in self._windows() if window.steps), default=0)

    @property
    def last_us(self) -> int:
        """Time of the newest step written; 0 without any."""
        with self._lock:
            return next((window.last_us for window in reversed(self._windows()) if window.steps), 0)

    def _windows(self) -> list[_Window]:
        return [*self._sealed, *([self._growing] if self._growing else [])]

    # --- writing -------------------------------------------------------------------------------------

    def begins(self, time_us: int) -> bool:
        """Whether a step at this time has nothing before it to be a difference from: it should be whole."""
        with self._lock:
            return self._whole_due or self._growing is None or self._turns(self._growing, time_us)

    def append(self, time_us: int, data: bytes, now_ns: int) -> None:
        """Write a step. One that cannot be written is counted, not raised."""
        with self._lock:
            if self._growing is not None and self._turns(self._growing, time_us):
                self._try_to_seal()
            try:
                self._write(time_us, data)
                self._whole_due = False
            except OSError as error:
                self._lost(error)
            self._limit(now_ns)

    def _turns(self, growing: _Window, time_us: int) -> bool:
        """Whether a step at this time is another window's: times only rise within one."""
        return bool(growing.steps) and (
            time_us // self._window_us != self._began_us // self._window_us
            or time_us < growing.last_us
            or growing.bytes > self._max_bytes // _SHARE
        )

    def _write(self, time_us: int, data: bytes) -> None:
        if self._growing is None:
            self._sequence += 1
            path = self._path(self._sequence, "steps")
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            self._growing = _Window(path, self._sequence)
        growing = self._growing
        if not growing.steps:
            self._began_us = time_us
        frame = encode([(time_us, data)], _GROWING_LEVEL)
        growing.bytes = write_frame(self._fd, frame, growing.bytes)
        growing.note(1, time_us, time_us)
        self.steps_written += 1

    def _lost(self, error: OSError) -> None:
        cause = error.strerror or type(error).__name__
        if not self.losses.steps[cause]:
            log.warning(
                "cannot write %s to %s: %s; steps are lost until it works again",
                self._name,
                self._directory,
                error,
            )
        self.losses.steps[cause] += 1
        self._whole_due = True

    def _try_to_seal(self) -> None:
        try:
            self._seal()
        except OSError as error:
            log.warning(
                "cannot seal a window of %s in %s, it goes on growing: %s", self._name, self._directory, error
            )

    def _seal(self) -> None:
        growing = self._growing
        assert growing is not None
        path = self._path(growing.sequence, "sealed")
        made = _Window(path, growing.sequence)
        data = _whole(growing)  # a window that cannot be read now may be later
        with whole_file(path) as file:
            for steps in _together(self._steps_in(data, growing.path)):
                frame = encode(steps, _SEALED_LEVEL)
                file.write(frame)
                made.bytes += len(frame)
                made.note(len(steps), min(steps)[0], max(steps)[0])
        self._close_growing()
        if made.steps:
            self._sealed.append(made)
        else:
            path.unlink()
        growing.path.unlink(missing_ok=True)

    def _limit(self, now_ns: int) -> None:
        """Remove what is too old, then what is too much, the oldest first."""
        if self._clock.trusts(now_ns):
            oldest = now_ns // 1000 - self.keep * 1_000_000
            for window in [window for window in self._sealed if window.last_us < oldest]:
                self._remove(window, "age")
        while self._sealed and sum(window.bytes for window in self._windows()) > self._max_bytes:
            self._remove(min(self._sealed, key=lambda window: window.last_us), "size")

    def _remove(self, window: _Window, cause: str) -> None:
        self._sealed.remove(window)
        try:
            window.path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("cannot remove a window of %s: %s", self._name, error)
        self.losses.removed_steps[cause] += window.steps

    # --- reading -------------------------------------------------------------------------------------

    def between(self, since_us: int, until_us: int) -> Iterator[Step]:
        """The steps with times in the range, in the order written."""
        with self._lock:
            sequences = [window.sequence for window in self._windows() if window.steps]
        for sequence in sequences:  # not all under one lock: whoever writes is not to wait for a week's steps
            with self._lock:
                steps = [
                    step
                    for window in self._windows()
                    if window.sequence == sequence
                    and window.last_us >= since_us
                    and window.first_us <= until_us
                    for step in self._steps_of(window, since_us, until_us)
                    if since_us <= step[0] <= until_us
                ]
            yield from steps

    def up_to(self, time_us: int) -> list[Step]:
        """The steps of one window from its begin to this time, oldest first: a whole one and what changed since.

        Of the windows that began by then it is the one with the newest step, of several (the clock was set back)
        the one written last.
        """
        with self._lock:
            began = [window for window in self._windows() if window.steps and window.first_us <= time_us]
            if not began:
                return []
            window = max(began, key=lambda window: (min(window.last_us, time_us), window.sequence))
            return [step for step in self._steps_of(window, 0, time_us) if step[0] <= time_us]

    def _steps_of(self, window: _Window, since_us: int | None = None, until_us: int = 0) -> Iterator[Step]:
        """A window's steps, at least those in the range; what cannot be read is counted and passed over."""
        try:
            data = _whole(window)
        except OSError as error:
            self._damaged(window.path, error)
        else:
            yield from self._steps_in(data, window.path, since_us, until_us)

    def _steps_in(
        self, data: bytes, path: Path, since_us: int | None = None, until_us: int = 0
    ) -> Iterator[Step]:
        at = 0
        while at < len(data):
            header = parse_header(data[at : at + HEADER_BYTES])
            end = at + HEADER_BYTES + (header.length if header else 0)
            if (
                header is not None
                and since_us is not None
                and (header.last_us < since_us or header.first_us > until_us)
            ):
                at = end
                continue
            try:
                yield from decode(data[at:end])
                at = end
            except BadFrame as error:
                self._damaged(path, error)
                at = find_frame(data, at + 1)
                if at < 0:
                    return

    def _damaged(self, path: Path, error: Exception) -> None:
        self.losses.damaged += 1
        log.warning("cannot read history in %s: %s", path, error)

    # --- opening and closing -------------------------------------------------------------------------

    def _open(self) -> None:
        found = find_windows(self._directory, self._name, "steps", "sealed")
        self._sequence = max(found, default=0)
        for sequence, paths in found.items():
            if "sealed" in paths:
                self._sealed.append(self._opened(paths["sealed"], sequence))
                if "steps" in paths:
                    paths["steps"].unlink()  # a crash before it was removed
            else:
                self._reopen(paths["steps"], sequence)
                if sequence != self._sequence:  # it could not be sealed then
                    self._try_to_seal()
                    self._close_growing()

    def _opened(self, path: Path, sequence: int) -> _Window:
        """A file's bounds, from the headers of its frames alone."""
        window = _Window(path, sequence)
        with path.open("rb") as file:
            window.bytes = os.fstat(file.fileno()).st_size
            at = 0
            while (header := parse_header(os.pread(file.fileno(), HEADER_BYTES, at))) is not None:
                at += HEADER_BYTES + header.length
                window.note(header.steps, header.first_us, header.last_us)
        if at != window.bytes:  # what is behind the damage counts as far as it can be read
            window.steps = window.first_us = window.last_us = 0
            for time_us, _ in self._steps_of(window):
                window.note(1, time_us, time_us)
        return window

    def _reopen(self, path: Path, sequence: int) -> None:
        """Go on in a growing file, cut behind its last whole frame."""
        data = path.read_bytes()
        window = _Window(path, sequence)
        at = end = 0
        while (found := find_frame(data, at)) >= 0:
            self.losses.damaged += found != at
            header = parse_header(data[found : found + HEADER_BYTES])
            assert header is not None
            at = end = found + HEADER_BYTES + header.length
            window.note(header.steps, header.first_us, header.last_us)
        torn = len(data) - end
        self.losses.torn_bytes += torn
        if torn:
            log.warning("%s: cut %d bytes of an unfinished write", path, torn)
        window.bytes = end
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        os.ftruncate(self._fd, end)
        self._growing, self._began_us = window, window.first_us

    def _close_growing(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._growing = -1, None

    def _path(self, sequence: int, kind: str) -> Path:
        return self._directory / f"{self._name}-{sequence:08d}.{kind}"

    def close(self) -> None:
        """Give the descriptor back; the growing window goes on growing when it is opened again."""
        with self._lock, contextlib.suppress(OSError):
            self._close_growing()


def _whole(window: _Window) -> bytes:
    """A window's file as far as its writes came to an end. Raises OSError."""
    return window.path.read_bytes()[: window.bytes]


def _together(steps: Iterator[Step]) -> Iterator[list[Step]]:
    """Steps in groups that are compressed together."""
    group: list[Step] = []
    size = 0
    for step in steps:
        group.append(step)
        size += len(step[1])
        if len(group) == _TOGETHER or size > _TOGETHER_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
