"""When to read a container's pipes: at once when lines trickle, in large reads under load.

After a quiet time the first bytes are taken at once; while more keep coming the pipes are looked at every few
milliseconds, so that a wake-up costs a block and not a line; a pipe that filled meanwhile is read without
pause. What becomes of the bytes is the copier's business; attached clients get them as they came.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import select
import sys
import termios
import time
from collections.abc import Callable, Mapping

from logdrivers.block import Stream
from logdrivers.source.copier import Copier
from runtime.shim import streams
from runtime.shim.linux import trim_heap
from runtime.shim.reactor import READ, Reactor
from runtime.shim.spec import ShimSpec

__all__ = ["HOT_SECONDS", "Pump"]

log = logging.getLogger(__name__)

#: While output keeps coming, the pipes are looked at this often.
HOT_SECONDS = 0.005
#: A round that moved this much is followed by the next without a pause.
_BUSY_BYTES = 1 << 18
_CHUNK = 1 << 18
_ROUND_BYTES = 1 << 20
_RETRY_SECONDS = 1.0
#: A terminal that no process has open is looked at this often: somebody may open it again.
_HUNG_SECONDS = 1.0
#: So much output leaves a heap worth giving back when it is quiet again.
_TRIM_BYTES = 1 << 20
_ARMED = READ | select.EPOLLONESHOT

#: Gets bytes as they came; returns nothing, must not block.
Tap = Callable[[Stream, bytes], None]


class Pump:
    """Moves a container's output from its pipes through the spools into the journal."""

    def __init__(self, spec: ShimSpec, copier: Copier, reactor: Reactor) -> None:
        self._spec = spec
        self._copier = copier
        self._reactor = reactor
        self._tty: int | None = None
        self._fds: dict[Stream, int] = {}
        self._armed: set[int] = set()  # descriptors epoll will tell us of: until then they hold nothing
        self._ended: set[Stream] = set()
        self._running = True
        self._retry_at = 0.0
        self._tty_hung = False
        self._throttled = False  # a rate limit keeps bytes in the pipes
        self._moved_at = 0.0
        self.tap: Tap | None = None
        self.paused: Callable[[], bool] = lambda: False
        self.failures = 0  #: how often journal or spool refused
        self._since_trim = 0
        self._cooling = False  # output came, and the pages it took are not given back yet
        self._open()

    def _open(self) -> None:
        names: Mapping[str, Stream] = {"stdout": Stream.STDOUT, "stderr": Stream.STDERR}
        for name in ("stdout",) if self._spec.tty else streams.OUTPUTS:
            self._fds[names[name]] = streams.open_shim_end(self._spec, name, running=self._running)
        for fd in self._fds.values():
            self._watch(fd)

    def _watch(self, fd: int) -> None:
        self._reactor.watch(fd, _ARMED, lambda _events: self._armed.discard(fd))

    def close(self) -> None:
        """Let go of the pipes; what is in them stays while others hold them."""
        for fd in self._fds.values():
            self._reactor.forget(fd)
            os.close(fd)
        self._fds = {}

    def set_tty(self, master: int) -> None:
        """Read this terminal into the stdout FIFO from now on."""
        self._tty = master
        self._watch(master)

    def input_ended(self) -> None:
        """The container has ended: from now on end of file shows when the last writer has gone."""
        old = list(self._fds.values())
        self._running = False
        for fd in old:
            self._reactor.forget(fd)
        self._armed.clear()
        reading = {s: os.open(f"/proc/self/fd/{fd}", _READ_FLAGS) for s, fd in self._fds.items()}
        if self._tty is not None:
            self._drain_tty()
        for fd in old:
            os.close(fd)
        self._fds = reading

    def _drain_tty(self) -> None:
        """Move what the terminal still holds, as far as it fits, into the spool."""
        while self._splice_tty():
            self.round()

    @property
    def drained(self) -> bool:
        """Whether every pipe has reached its end and the journal has everything."""
        return self._ended == set(self._fds) and not self.behind

    @property
    def behind(self) -> int:
        """Bytes that have left the pipes and are not in the journal."""
        return sum(s.end - self._copier.copied(stream) for stream, s in self._copier.spools.items())

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Our ends of the pipes."""
        return tuple(self._fds.values())

    @property
    def refused(self) -> bool:
        """Whether journal or spool took nothing at the last try."""
        return bool(self._retry_at)

    @property
    def unread(self) -> int:
        """Bytes that are still in the pipes."""
        return sum(_readable(fd) for fd in self._fds.values())

    def wait_seconds(self, moved: int) -> float | None:
        """How long to wait after a round; arms the pipes when it may be for ever."""
        seconds = self._wait_seconds(moved)
        due = self._copier.due
        if due is None or self._retry_at:  # what is due needs the disk that has no room
            return seconds
        until_due = max(0.0, due - time.monotonic())
        return until_due if seconds is None else min(seconds, until_due)

    def _wait_seconds(self, moved: int) -> float | None:
        if moved >= _BUSY_BYTES:
            return 0.0
        if self._retry_at:
            return max(0.0, self._retry_at - time.monotonic())
        if self._throttled:
            return max(HOT_SECONDS, self._copier.pause_seconds())
        if (moved and not self._after_quiet()) or not self._running:
            self._cooling = True
            return HOT_SECONDS
        if self.paused():
            return 0.1
        if self._cooling:
            self._cooling = False
            self._copier.release()
            if self._since_trim > _TRIM_BYTES:
                self._since_trim = 0
                trim_heap()
        self._arm()
        return _HUNG_SECONDS if self._tty_hung else None

    def _after_quiet(self) -> bool:
        """Whether the bytes just moved came after a quiet time: then there is no need to look again soon."""
        before, self._moved_at = self._moved_at, time.monotonic()
        return self._moved_at - before > 2 * HOT_SECONDS

    def _arm(self) -> None:
        fds = self._fds.values() if self._tty is None or self._tty_hung else (*self._fds.values(), self._tty)
        for fd in fds:
            if fd not in self._armed:
                self._reactor.change(fd, _ARMED)
                self._armed.add(fd)

    def round(self) -> int:
        """One pass over the streams; returns how many bytes left the pipes."""
        if self._retry_at > time.monotonic():
            return 0
        try:
            if self._retry_at:
                self._copier.reopen()
                self._catch_up()
                self._retry_at = 0.0
            moved = 0 if self.paused() else self._read_streams()
            due = self._copier.due
            if due is not None and due <= time.monotonic():
                self._copier.pump_due(time.time_ns())
            return moved
        except OSError as error:
            self.failures += 1
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            log.error("write the output of %s: %s; trying again", self._spec.container_id[:12], error)
            with contextlib.suppress(OSError):
                self._copier.release()  # what is in the journal need not fill the disk of the spools
            return 0

    def _read_streams(self) -> int:
        if self._tty is not None and self._running:
            self._splice_tty()
            self._armed.clear()  # what came out of it is in a pipe now
        self._throttled = False
        moved = 0
        for stream, fd in self._fds.items():
            if fd not in self._armed:
                moved += self._stream_round(stream, fd)
        return moved

    def flush(self) -> None:
        """Append what is left, unfinished lines too: no more will come.

        What a journal that refuses does not take is in the spools at least, for the container's next life.
        """
        self._ended.update(self._fds)
        for stream, fd in self._fds.items():
            with contextlib.suppress(OSError):
                while self._copier.spools[stream].fill(fd, _CHUNK):
                    pass
        if not self._retry_at:
            try:
                self._catch_up()
            except OSError as error:
                self.failures += 1
                log.error("write the last output of %s: %s", self._spec.container_id[:12], error)

    def _catch_up(self) -> None:
        for stream in self._fds:
            self._copier.pump(stream, time.time_ns(), eof=stream in self._ended)

    def _stream_round(self, stream: Stream, fd: int) -> int:
        spool = self._copier.spools[stream]
        total = 0
        while total < _ROUND_BYTES and stream not in self._ended:
            before = spool.end
            limit = self._fill_bytes()
            if not limit:
                break
            moved = spool.fill(fd, limit)
            if moved is None:
                break
            if moved == 0:
                self._ended.add(stream)
            elif self.tap is not None:
                self.tap(stream, spool.read(before, spool.end))
            total += moved
            self._since_trim += moved
            self._copier.spend(moved)
            self._copier.pump(stream, time.time_ns(), eof=moved == 0)
            if moved < limit and self._running:
                break
        return total

    def _fill_bytes(self) -> int:
        """How much may leave a pipe at once; 0 if the container's writes are to wait."""
        allowed = self._copier.allowance() if self._running else None
        if allowed is None or allowed >= _CHUNK:
            return _CHUNK
        if allowed <= 0:
            self._throttled = True
            return 0
        return allowed

    def _splice_tty(self) -> bool:
        """Move bytes from the terminal into the FIFO; whether there were any."""
        assert self._tty is not None
        fifo = self._fds[Stream.STDOUT]
        with contextlib.suppress(BlockingIOError):
            try:
                moved = os.splice(self._tty, fifo, 1 << 16, flags=os.SPLICE_F_NONBLOCK)
                self._tty_hung = False
                return moved > 0
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                self._tty_hung = True
        return False


_READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


def _readable(fd: int) -> int:
    size = bytearray(4)
    fcntl.ioctl(fd, termios.FIONREAD, size)
    return int.from_bytes(size, sys.byteorder)
