"""The intake of a container that has options for what happens at the source: frames become bytes again.

A Docker Engine has cut the container's output into lines and pieces of 16 KiB; joined together they are what it
wrote, and from there on it is the copier's: line length, messages of several lines, rate limit. What lies
between the frames' spool and the streams' is written down once both are in, so a kill in between repeats it.
With these options the lines of one read share the time of the last.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from logdrivers.block import Stream
from logdrivers.journal import Entry, Journal
from logdrivers.plugin.blocks import BlockMaker
from logdrivers.plugin.frames import Frames
from logdrivers.plugin.intake import Intake
from logdrivers.source.copier import Copier
from logdrivers.source.ledger import Ledger
from logdrivers.source.options import SourceOptions
from logdrivers.source.rate_limit import DropCounter
from logdrivers.source.spool import Spool
from logdrivers.statefile import StateFile

__all__ = ["SourceFiles", "SourceIntake"]

log = logging.getLogger(__name__)

_STREAMS = (Stream.STDOUT, Stream.STDERR)


class SourceFiles:
    """Where such an intake keeps what: all but the counter may be lost in a reboot."""

    def __init__(self, spool: Path, counter: Path) -> None:
        self.frames = spool
        self.counter = counter
        self.ledger = spool.with_name(f"{spool.name}.ledger")
        self.place = spool.with_name(f"{spool.name}.place")

    def stream(self, stream: Stream) -> Path:
        """The spool of a stream's bytes."""
        return self.frames.with_name(f"{self.frames.name}.{stream.text}")

    def remove(self) -> None:
        """The container has ended and the journal has everything."""
        for path in (self.frames, self.ledger, self.place, *map(self.stream, _STREAMS)):
            path.unlink(missing_ok=True)


class SourceIntake(Intake):
    """The writing side of one container with such options. Not thread-safe: its owner has a lock."""

    def __init__(
        self,
        name: str,
        container_id: str,
        open_journal: Callable[[], Journal],
        files: SourceFiles,
        state: Path,
        options: SourceOptions,
    ) -> None:
        """Go on where the journal ends. Raises OSError or ValueError if a file cannot be used."""
        self._place = StateFile(files.place, "QQQ")
        self._files = files
        self._copier = Copier(
            container_id,
            open_journal,
            self._open_spool,
            Ledger(files.ledger),
            options,
            lambda: DropCounter(files.counter),
        )
        self._copier.on_append = self._tell
        self._paused_until = 0.0
        self._draining = False
        self._left = True  # in the streams' spools there may be what a kill, or a refusal, left
        super().__init__(name, lambda: self._copier.journal, files.frames, state, BlockMaker())

    # --- how it stands

    @property
    def behind(self) -> int:
        """Bytes that have left the FIFO and are not in the journal, those of whole frames as what they say."""
        copier = self._copier
        waiting = sum(spool.end - copier.copied(stream) for stream, spool in copier.spools.items())
        return super().behind + waiting

    @property
    def retry_seconds(self) -> float:
        """How long to wait before the next round: after a refusal, or for the rate limit."""
        return max(super().retry_seconds, self._paused_until - time.monotonic(), 0.0)

    @property
    def due(self) -> float | None:
        """When the next round is to be at the latest, by the monotonic clock; None for when there is more."""
        return self._copier.due

    # --- stages

    def round(self) -> int | None:
        """As ``Intake.round``; also what has waited long enough goes into the journal."""
        moved = super().round()
        due = self._copier.due
        if due is not None and due <= time.monotonic() and not super().retry_seconds:
            try:
                self._copier.pump_due(time.time_ns())
            except OSError as error:
                self._refused(error)
        return moved

    def drain(self) -> bool:
        """As ``Intake.drain``: the writer is done, nothing is made to wait any more."""
        self._draining, self._paused_until = True, 0.0
        try:
            return super().drain()
        finally:
            self._draining = False

    def end(self) -> bool:
        """No more comes: what is unfinished ends here. Whether the journal has everything."""
        self._close_fifo()
        if super().behind and not self.drain():
            return False
        try:
            self._copier.begin_life(time.time_ns())
        except OSError as error:
            self._refused(error)
            return False
        if super().behind:
            self._give_up(torn=True, why="the stream ended within a frame")
        return True

    def rest(self) -> None:
        """Give spooled pages back that the journal holds."""
        super().rest()
        self._copier.release()

    def close(self) -> None:
        """Close everything; what is in the spools and the FIFO stays."""
        self._close_fifo()
        self._copier.close()
        self._spool.close()
        self._state.close()
        self._place.close()

    # --- steps

    def _fill_bytes(self) -> int:
        allowed = None if self._draining else self._copier.allowance()
        if allowed is None:
            return super()._fill_bytes()
        if allowed <= 0:
            self._paused_until = time.monotonic() + self._copier.pause_seconds()
            return 0
        return min(allowed, super()._fill_bytes())

    def _append(self, frames: Frames) -> None:
        end = self._mark + int(frames.ends[-1])
        spools = self._copier.spools
        ends = {stream: spool.end for stream, spool in spools.items()}
        try:
            for stream in _STREAMS:
                spools[stream].append(_text(frames, stream))
        except OSError:
            for stream, before in ends.items():
                spools[stream].cut(before)
            raise
        size = sum(spool.end - ends[stream] for stream, spool in spools.items())
        self._place.write(end, *(spools[stream].end for stream in _STREAMS))
        self._mark = end
        self._copier.spend(size)
        self._spool.release(self._mark)
        self._pump(int(frames.times_ns[-1]))

    def _append_whole(self) -> None:
        if self._left:
            self._pump(time.time_ns())
        super()._append_whole()

    def _pump(self, now_ns: int) -> None:
        self._left = True
        for stream in _STREAMS:
            self._copier.pump(stream, now_ns)
        self._left = False

    def _give_up(self, torn: bool, why: str) -> None:
        lost, end = super().behind, self._spool.end
        log.error("%s: %d bytes from the engine are lost: %s", self._name, lost, why)
        self._place.write(end, *(self._copier.spools[stream].end for stream in _STREAMS))
        before_torn, before_refused = self.lost
        self._state.write(before_torn + lost * torn, before_refused + lost * (not torn))
        self._mark = end

    def _open_again(self) -> None:
        self._copier.reopen()
        self._journal = self._copier.journal
        self._reopen = False

    def _resume(self) -> None:
        place = self._place.values
        if place is not None:
            self._mark = place[0]
            return
        # Nothing was written yet, or a reboot took the files; or the container's label meant nothing until now,
        # and the journal's mark was a place among the frames.
        frames = self._files.frames
        size = frames.stat().st_size if frames.exists() else 0
        self._mark = min(size, self._copier.copied(Stream.STDOUT))
        self._place.write(self._mark, *(self._copier.spools[stream].end for stream in _STREAMS))

    def _open_spool(self, stream: Stream, base: int) -> Spool:
        """The spool of a stream, without what a kill left in it that is not written down."""
        spool = Spool(self._files.stream(stream), base)
        if self._place.values is not None:
            spool.cut(max(base, self._place.values[_STREAMS.index(stream) + 1]))
        return spool

    def _tell(self, entry: Entry) -> None:
        if self.on_append is not None:
            self.on_append(entry)


def _text(frames: Frames, stream: Stream) -> bytes:
    """What a stream of the container wrote to give these frames."""
    wanted = np.flatnonzero(frames.streams == int(stream)).tolist()
    if not wanted:
        return b""
    lines, partials = frames.lines, frames.partials
    if not partials:
        return b"\n".join([lines[index] for index in wanted]) + b"\n"
    parts: list[bytes] = []
    for index in wanted:
        partial = partials.get(index)
        parts += (lines[index], b"" if partial is not None and not partial.last else b"\n")
    return b"".join(parts)
