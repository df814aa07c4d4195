"""One resolution on disk: windows of files in the order written, the newest growing, the others sealed.

Says what is there, rolls over, removes what is too old; how much all resolutions may take together is for
``archive.py``. Nothing here is safe for several threads: the archive has the lock.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from collector.history.raw import RawWindow
from collector.history.rows import Definition, Packed, as_array, numbers
from collector.history.sealed import Corrupt, SealedWindow, decode_columns, decode_packed, write_sealed
from collector.history.window_files import find_windows

if TYPE_CHECKING:
    from collector.history.rows import Rows

__all__ = ["MINUTES", "TENS", "Losses", "Resolution", "Tier"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_Decode = Callable[[bytes, int], _T]

_LATEST = 1 << 62
_GROUP = 16  # containers in memory at a time while a window is sealed


@dataclass(frozen=True, slots=True)
class Resolution:
    """How long a step is, how long it is kept, how long a file goes on. Seconds."""

    step: int
    keep: int
    window: int


TENS = Resolution(10, 6 * 3600, 1800)
MINUTES = Resolution(60, 7 * 86400, 4 * 3600)


@dataclass(slots=True)
class Losses:
    """What was lost or taken since the agent started, by cause."""

    steps: Counter[str] = field(default_factory=Counter)  #: steps that could not be written
    removed_rows: Counter[str] = field(default_factory=Counter)  #: by ``age``, ``size``
    removed_bytes: Counter[str] = field(default_factory=Counter)
    torn_bytes: int = 0  #: of writes that a crash cut short
    damaged: int = 0  #: steps, containers' chunks and files whose bytes are not what was written


class Tier:
    """The windows of one resolution in a directory of its own."""

    def __init__(self, directory: Path, resolution: Resolution, losses: Losses) -> None:
        """Open what is there, repaired. Raises OSError."""
        self.resolution = resolution
        self.sealed: list[SealedWindow] = []
        self.raw: RawWindow | None = None
        self.renamed: set[int] = set()  #: numbers whose definition has to be written again
        self._directory = directory
        self._losses = losses
        self._sequence = 0
        directory.mkdir(parents=True, exist_ok=True)
        self._open()

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return sum(window.bytes for window in self.sealed) + (self.raw.bytes if self.raw else 0)

    @property
    def rows(self) -> int:
        """Rows held."""
        return sum(int(window.rows) for window in self.sealed) + (self.raw.rows if self.raw else 0)

    @property
    def first_us(self) -> int:
        """Time of the oldest row; 0 without any."""
        return min((window.first_us for window in self.windows() if window.rows), default=0)

    @property
    def last_number(self) -> int:
        """The highest number any container has in here."""
        return max((window.last_number for window in self.windows()), default=0)

    def windows(self) -> list[SealedWindow | RawWindow]:
        """All of them in the order written."""
        return [*self.sealed, *([self.raw] if self.raw else [])]

    # --- writing -------------------------------------------------------------------------------------

    def append(self, step_us: int, rows: Packed, define: Callable[[int], Definition]) -> None:
        """Write a step's packed rows, ordered by number. A step that cannot be written is counted, not raised."""
        if self.raw is not None and self._window(step_us) != self._window(self.raw_since):
            self.try_to_roll()
        try:
            if self.raw is None:
                self._sequence += 1
                self.raw = RawWindow(self._path(self._sequence, "raw"), self._sequence)
            known = self.raw.definitions
            new = [define(number) for number in dict.fromkeys(numbers(rows)) if number not in known]
            new += [define(n) for n in self.renamed if n in known]
            self.renamed.clear()
            self.raw.append(step_us, rows, new)
        except OSError as error:
            cause = error.strerror or type(error).__name__
            if not self._losses.steps[cause]:
                log.warning(
                    "cannot write history to %s: %s; steps are lost until it works again",
                    self._directory,
                    error,
                )
            self._losses.steps[cause] += 1

    def try_to_roll(self) -> None:
        """Begin another window at the next step; where sealing fails the growing one goes on growing."""
        try:
            self.roll()
        except OSError as error:
            log.warning("cannot seal a window of history, it goes on growing: %s", error)

    @property
    def raw_since(self) -> int:
        """When the first step of the growing window began."""
        return self.raw.frames[0].step_us if self.raw and self.raw.frames else 0

    def roll(self) -> None:
        """Seal the growing window; the next step begins another. Raises OSError, and then it stays as it is."""
        if self.raw is None:
            return
        raw = self.raw
        sealed = self._seal(raw)
        raw.close()
        self.raw = None
        if sealed is not None:
            self.sealed.append(sealed)
        raw.path.unlink()

    def _seal(self, raw: RawWindow) -> SealedWindow | None:
        if not raw.rows:
            return None
        path = self._path(raw.sequence, "sealed")
        write_sealed(path, raw.grouped(_GROUP))
        return SealedWindow(path, raw.sequence)

    # --- taking away ---------------------------------------------------------------------------------

    def expire(self, now_us: int) -> None:
        """Remove the windows whose newest row is older than what is kept."""
        oldest = now_us - self.resolution.keep * 1_000_000
        for window in [window for window in self.sealed if window.last_us < oldest]:
            self.remove(window, "age")

    @property
    def oldest(self) -> SealedWindow | None:
        """The sealed window whose newest row is the oldest."""
        return min(self.sealed, key=lambda window: window.last_us, default=None)

    def remove(self, window: SealedWindow, cause: str) -> None:
        """Remove a sealed window; its rows are counted under the cause."""
        self.sealed.remove(window)
        window.path.unlink(missing_ok=True)
        self._losses.removed_rows[cause] += window.rows
        self._losses.removed_bytes[cause] += window.bytes

    # --- reading -------------------------------------------------------------------------------------

    def series(self, container_id: str, since_us: int, until_us: int) -> Rows:
        """One container's rows with times in the range, in the order written."""
        parts: list[Rows] = []
        for window in self._touched(since_us, until_us):
            if isinstance(window, RawWindow):
                wanted = [n for n, one in sorted(window.definitions.items()) if one.id == container_id]
                parts.append(window.series(wanted, since_us, until_us))
            else:
                chunks = self._chunks(window, since_us, until_us, decode_columns, container_id)
                parts += [rows for _, rows in chunks]
        return _within(parts, since_us, until_us)

    def between(self, since_us: int, until_us: int) -> tuple[Rows, dict[int, Definition]]:
        """All containers' rows with times in the range, in the order written, and whose they are."""
        parts: list[Rows] = []
        definitions: dict[int, Definition] = {}
        for window in self._touched(since_us, until_us):
            if isinstance(window, RawWindow):
                parts += [as_array(packed) for packed in window.between(since_us, until_us)]
                definitions |= window.definitions
            else:
                for definition, rows in self._chunks(window, since_us, until_us, decode_columns):
                    parts.append(rows)
                    definitions[definition.number] = definition
        return _within(parts, since_us, until_us), definitions

    def packed_since(self, since_us: int) -> Iterator[tuple[Packed, Mapping[int, Definition]]]:
        """The packed rows of what reaches to a time or beyond it, in the order written, and whose they are.

        A piece at a time: a step's of all containers, or a window's of one.
        """
        for window in self._touched(since_us, _LATEST):
            if isinstance(window, RawWindow):
                for packed in window.between(since_us, _LATEST):
                    yield packed, window.definitions
            else:
                for definition, packed in self._chunks(window, since_us, _LATEST, decode_packed):
                    yield packed, {definition.number: definition}

    def _touched(self, since_us: int, until_us: int) -> list[SealedWindow | RawWindow]:
        """The windows with rows in the range."""
        return [one for one in self.windows() if one.last_us >= since_us and one.first_us <= until_us]

    def definitions(self, window: SealedWindow | RawWindow) -> list[tuple[Definition, int, int]]:
        """Whose rows are in a window, each with the times of its first and last row (the window's if growing)."""
        if isinstance(window, RawWindow):
            return [(one, window.first_us, window.last_us) for one in window.definitions.values()]
        return self.spans(window)

    def spans(self, window: SealedWindow | RawWindow) -> list[tuple[Definition, int, int]]:
        """Whose rows are in a window, each with the times of its own first and last row: a growing one is read."""
        try:
            if isinstance(window, RawWindow):
                return window.spans()
            return [(one.definition, one.first_us, one.last_us) for one in window.entries()]
        except (Corrupt, OSError) as error:
            self._damaged(error)
            return []

    def _chunks(
        self,
        window: SealedWindow,
        since_us: int,
        until_us: int,
        decode: _Decode[_T],
        container_id: str | None = None,
    ) -> Iterator[tuple[Definition, _T]]:
        """The rows of containers with some in the range, of one container or all; what is damaged is left out."""
        try:
            entries = [
                one
                for one in window.entries()
                if one.last_us >= since_us
                and one.first_us <= until_us
                and container_id in (None, one.definition.id)
            ]
            chunks = window.rows_of(entries, decode) if entries else []
        except (Corrupt, OSError) as error:
            self._damaged(error)
            return
        for entry, chunk in zip(entries, chunks, strict=True):
            if isinstance(chunk, Corrupt):
                self._damaged(chunk)
            else:
                yield entry.definition, chunk

    # --- opening -------------------------------------------------------------------------------------

    def _open(self) -> None:
        found = find_windows(self._directory, f"{self.resolution.step}s", "raw", "sealed")
        self._sequence = max(found, default=0)
        for sequence, paths in found.items():
            sealed = self._opened(paths["sealed"], sequence) if "sealed" in paths else None
            if sealed is not None:
                self.sealed.append(sealed)
                if "raw" in paths:
                    paths["raw"].unlink()  # a crash before it was removed
            elif "raw" in paths:
                self._reopen(paths["raw"], sequence)

    def _opened(self, path: Path, sequence: int) -> SealedWindow | None:
        try:
            return SealedWindow(path, sequence)
        except Corrupt as error:
            self._damaged(error)
            path.rename(path.with_name(f"{self.resolution.step}s.damaged"))  # the newest is kept to look at
            return None

    def _reopen(self, path: Path, sequence: int) -> None:
        raw = RawWindow(path, sequence)
        self._losses.torn_bytes += raw.torn_bytes
        self._losses.damaged += raw.damaged_frames
        if sequence == self._sequence:
            self.raw = raw
            return
        sealed = self._seal(raw)
        raw.close()
        if sealed is not None:
            self.sealed.append(sealed)
        path.unlink()

    def _damaged(self, error: Exception) -> None:
        self._losses.damaged += 1
        log.warning("cannot read history: %s", error)

    def _path(self, sequence: int, kind: str) -> Path:
        return self._directory / f"{self.resolution.step}s-{sequence:08d}.{kind}"

    def _window(self, step_us: int) -> int:
        return step_us // (self.resolution.window * 1_000_000)

    def close(self, *, seal: bool = False) -> None:
        """Give the growing window's descriptor back; it goes on growing when it is opened again."""
        if seal:
            self.roll()
        if self.raw is not None:
            self.raw.close()
            self.raw = None


def _within(parts: list[Rows], since_us: int, until_us: int) -> Rows:
    import numpy as np

    rows: Rows = np.concatenate(parts) if parts else as_array(b"")
    return rows[(rows["time_us"] >= since_us) & (rows["time_us"] <= until_us)]
