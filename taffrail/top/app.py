"""The loop of ``taffrail top``: keys, answers, changes of size and signals in; frames on the terminal out."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from taffrail.top.keys import KeyDecoder
from taffrail.top.layout import draw
from taffrail.top.model import Frame, Model, Subject
from taffrail.top.screen import Screen, wants_colours
from taffrail.top.source import Client, Source

__all__ = ["run_top"]

#: How long after an escape the rest of a key's sequence may take.
_ESCAPE_SECONDS = 0.05

#: While paused, how often the title says anew how long ago it was.
_PAUSED_SECONDS = 1.0

_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def run_top(clients: Mapping[str, Client], *, interval: float = 1.0, colours: bool | None = None) -> int:
    """Show until ``q`` or a signal; the exit status (128 and the signal's number for a signal).

    ``clients`` are the agents to ask by the names given to their hosts; ``""`` for this host's alone.

    Raises OSError where standard input or output is no terminal. The terminal is restored on every way out.
    """
    with _wakeups() as (wakeup, signals), Screen() as screen:
        loop = _Loop(
            clients, screen, wakeup, interval, wants_colours(os.environ) if colours is None else colours
        )
        return loop.run(signals)


@contextmanager
def _wakeups() -> Iterator[tuple[tuple[socket.socket, socket.socket], deque[int]]]:
    """A pair of sockets that a signal or another thread wakes the loop through, and the signals that came."""
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    came: deque[int] = deque()

    def note(number: int, _frame: object) -> None:
        came.append(number)

    numbers = (*_ENDING, signal.SIGWINCH, signal.SIGCONT)
    before = {number: signal.signal(number, note) for number in numbers}
    old = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    try:
        yield (reading, writing), came
    finally:
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        reading.close()
        writing.close()


class _Loop:
    """One run."""

    def __init__(
        self,
        clients: Mapping[str, Client],
        screen: Screen,
        wakeup: tuple[socket.socket, socket.socket],
        interval: float,
        colours: bool,
    ) -> None:
        self._screen = screen
        self._reading, self._writing = wakeup
        self._colours = colours
        self._model = Model(several="" not in clients)
        self._keys = KeyDecoder()
        self._lock = threading.Lock()
        self._arrived: list[tuple[Subject, Frame]] = []
        self._source = Source(clients, self._deliver, interval)

    def run(self, signals: deque[int]) -> int:
        """Until the model is done or a signal ends it."""
        model = self._model
        with selectors.DefaultSelector() as selector:
            selector.register(self._screen.input, selectors.EVENT_READ)
            selector.register(self._reading, selectors.EVENT_READ)
            self._source.start()
            wanted = model.wanted
            try:
                while not model.done:
                    self._screen.show(draw(model, *self._screen.size(), colours=self._colours))
                    ready = selector.select(self._patience())
                    self._read(ready)
                    while signals:
                        number = signals.popleft()
                        if number in _ENDING:
                            return 128 + number
                        self._screen.forget()
                    with self._lock:
                        arrived, self._arrived = self._arrived, []
                    for subject, frame in arrived:
                        model.take(subject, frame)
                    if model.wanted != wanted:
                        wanted = model.wanted
                        self._source.show(model.level.subject, model.paused_ns)
            finally:
                self._source.stop()
        return 0

    def _patience(self) -> float | None:
        """Seconds to wait for a key, rows or a signal; None: until there is one."""
        if self._keys.waiting:
            return _ESCAPE_SECONDS
        return None if self._model.paused_ns is None else _PAUSED_SECONDS

    def _read(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        keys = []
        if not ready:
            keys = self._keys.flush()
        for key, _ in ready:
            if key.fileobj is self._reading:
                self._reading.recv(4096)
                continue
            data = os.read(self._screen.input, 4096)
            if not data:  # the terminal is gone
                self._model.done = True
            keys += self._keys.feed(data)
        for name in keys:
            self._model.handle(name)

    def _deliver(self, subject: Subject, frame: Frame) -> None:
        with self._lock:
            self._arrived.append((subject, frame))
        try:
            self._writing.send(b"\0")
        except OSError:  # full: the loop is awake already; closed: it has ended
            return
