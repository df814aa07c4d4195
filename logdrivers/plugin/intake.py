"""One container's FIFO into its journal: every frame once, whatever is killed in between.

Bytes go from the FIFO to the spool and from there, as blocks, into the journal, whose mark is the offset in the
stream of all FIFOs the container has had. Frames carry their own times, so the same bytes always make the same
lines and nothing else has to be remembered. When to read is ``plugin/pump.py``'s business.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from logdrivers.block import Block
from logdrivers.journal import Entry, Journal, Mark, Position
from logdrivers.plugin.blocks import BlockMaker
from logdrivers.plugin.frames import MAX_FRAME, FrameError, Frames, decode
from logdrivers.source.spool import Spool, set_pipe_size
from logdrivers.statefile import StateFile

__all__ = ["Intake"]

log = logging.getLogger(__name__)

_PIPE_BYTES = 1 << 20
_FILL_BYTES = 1 << 18
_ROUND_BYTES = 1 << 20
_READ_BYTES = 1 << 18
_RETRY_SECONDS = 1.0


class Intake:
    """The writing side of one container. Not thread-safe: its owner has a lock."""

    def __init__(
        self, name: str, open_journal: Callable[[], Journal], spool: Path, state: Path, maker: BlockMaker
    ) -> None:
        """Go on where the journal ends. Raises OSError or ValueError if a file cannot be used."""
        self._name = name
        self._open_journal = open_journal
        self._maker = maker
        self._journal = open_journal()
        self._mark, self._skip = 0, 0
        self._resume()
        self._spool = Spool(spool, self._mark)
        self._state = StateFile(state, "QQ")
        self._fd = -1
        self._retry_at = 0.0
        self._reopen = False
        self.failures = 0  #: how often journal or spool refused
        self.on_append: Callable[[Entry], None] | None = None  #: told of every block that is in

    @property
    def fd(self) -> int:
        """The FIFO, -1 if there is none."""
        return self._fd

    @property
    def behind(self) -> int:
        """Bytes that have left the FIFO and are not in the journal."""
        return self._spool.end - self._mark

    @property
    def lost(self) -> tuple[int, int]:
        """Bytes that never became lines since the container was made: of torn frames, of what is no frame."""
        torn, refused = self._state.values or (0, 0)
        return torn, refused

    @property
    def due(self) -> float | None:
        """When the next round is to be at the latest, by the monotonic clock; None for when there is more."""
        return None

    @property
    def retry_seconds(self) -> float:
        """How long to wait before the next round after a refusal."""
        return max(0.0, self._retry_at - time.monotonic()) if self._retry_at else 0.0

    def open(self, fifo: Path) -> None:
        """Read this FIFO from now on. Raises OSError if it cannot be opened."""
        # Reading only: when the engine dies, the end of the stream shows.
        self._fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        set_pipe_size(self._fd, _PIPE_BYTES)

    def round(self) -> int | None:
        """Move what is in the FIFO into the journal, up to a limit: bytes moved, None behind the end.

        A journal or spool that refuses is logged and tried again a second later; bytes wait in the FIFO.
        """
        if self.retry_seconds:
            return 0
        try:
            if self._reopen:
                self._open_again()
            self._retry_at = 0.0
            self._append_whole()
            return self._fill()
        except OSError as error:
            self._refused(error)
            return 0

    def drain(self) -> bool:
        """Empty the FIFO, its writer is done. Whether the journal has it all; else the spool or the FIFO has."""
        while self.round():
            pass
        if not self._retry_at:
            return True
        with contextlib.suppress(OSError):  # the journal refuses: at least out of the FIFO
            while self._fd >= 0 and self._spool.fill(self._fd, _FILL_BYTES):
                pass
        return False

    def end(self) -> bool:
        """No more comes from the FIFO, which is drained. Whether the journal has everything."""
        self._close_fifo()
        if self.behind and not self.drain():
            return False
        if self.behind:
            self._give_up(torn=True, why="the stream ended within a frame")
        return True

    def rest(self) -> None:
        """Give spooled pages back that the journal holds."""
        if self._mark:
            self._spool.release(self._mark, all_pages=True)

    def close(self) -> None:
        """Close everything; what is in the spool and the FIFO stays."""
        self._close_fifo()
        self._journal.close()
        self._spool.close()
        self._state.close()

    # --- steps

    def _refused(self, error: OSError) -> None:
        self.failures += 1
        self._retry_at = time.monotonic() + _RETRY_SECONDS
        self._reopen = True
        log.error("write the output of %s: %s; trying again", self._name, error)

    def _fill_bytes(self) -> int:
        """How much may leave the FIFO at once; 0 if it has to wait."""
        return _FILL_BYTES

    def _close_fifo(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _fill(self) -> int | None:
        if self._fd < 0:
            return 0
        total = 0
        while total < _ROUND_BYTES and (limit := self._fill_bytes()):
            moved = self._spool.fill(self._fd, limit)
            if moved is None:
                break
            if moved == 0:
                return total or None
            total += moved
            self._append_whole()
        return total

    def _append_whole(self) -> None:
        """Append every whole frame that is in the spool."""
        limit = _READ_BYTES
        while self._mark < self._spool.end:
            data = self._spool.read(self._mark, min(self._spool.end, self._mark + limit))
            try:
                frames = decode(data)
            except FrameError as error:
                self._give_up(torn=False, why=str(error))
                return
            if len(frames):
                self._append(frames)
                limit = _READ_BYTES
            elif self._mark + limit >= self._spool.end:
                return
            else:
                limit = 2 * MAX_FRAME

    def _append(self, frames: Frames) -> None:
        start, end = self._mark, int(frames.ends[-1])
        skip = min(self._skip, len(frames))
        for block, stop in self._maker.make(frames, skip):
            position = self._journal.append(block, Mark(start + stop, 0))
            self._mark = start + stop
            self._announce(block, position)
        self._skip -= skip
        if self._mark < start + end:  # only skipped ones: all records are in, but not the mark
            self._journal.give_up(Mark(start + end, 0))
            self._mark = start + end
        self._spool.release(self._mark)

    def _announce(self, block: Block, end: Position) -> None:
        if self.on_append is not None:
            lines, _ = self._journal.written()
            self.on_append(Entry(block, end, lines - block.lines))

    def _give_up(self, torn: bool, why: str) -> None:
        """Count what is in the spool as lost, and go on behind it."""
        lost, end = self.behind, self._spool.end
        log.error("%s: %d bytes from the engine are lost: %s", self._name, lost, why)
        self._journal.give_up(Mark(end, 0))
        before_torn, before_refused = self.lost
        self._state.write(before_torn + lost * torn, before_refused + lost * (not torn))
        self._mark, self._skip = end, 0

    def _open_again(self) -> None:
        self._journal.close()
        self._journal = self._open_journal()
        self._resume()
        self._reopen = False

    def _resume(self) -> None:
        """A frame is a record, so the records of an unfinished append are the frames behind the mark."""
        resume = self._journal.resume()
        self._mark, self._skip = resume.mark.stdout, resume.records
