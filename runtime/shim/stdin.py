"""A container's stdin: what attached clients write to it, and its end.

A client waits while the container does not read. Once stdin is closed it stays closed, for successors of this
shim too.
"""

from __future__ import annotations

import os
import select
from collections import deque

from runtime.shim import streams
from runtime.shim.control import Connection
from runtime.shim.reactor import WRITE, Reactor
from runtime.shim.spec import ShimSpec
from runtime.shim.template_link import TemplateLink

__all__ = ["ContainerStdin", "StdinWriter"]


class ContainerStdin:
    """The stdin of the container's first process, or its terminal; nothing until one is opened."""

    def __init__(self, spec: ShimSpec, reactor: Reactor, template: TemplateLink) -> None:
        self._spec = spec
        self._reactor = reactor
        self._template = template
        self._writer: StdinWriter | None = None

    def open(self) -> None:
        """Open its FIFO, if the container has one that has not been closed for good."""
        if self._spec.open_stdin and not self._spec.tty and not streams.stdin_closed(self._spec):
            self._writer = StdinWriter(streams.open_shim_end(self._spec, "stdin"), self._reactor)

    def use_terminal(self, master: int) -> None:
        """Write to this terminal."""
        self._writer = StdinWriter(os.dup(master), self._reactor)

    def take(self, client: Connection, data: bytes) -> None:
        """Write what an attached client sent; nothing is the end of what it sends."""
        if self._writer is None:
            return
        if data:
            self._writer.write(client, data)
        elif self._spec.stdin_once and not self._spec.tty:
            self.close()

    def close(self) -> None:
        """End the container's stdin for good: we, our successors and the template let go of it."""
        if self._writer is None or self._spec.tty:
            return
        streams.mark_stdin_closed(self._spec)
        self._template.release("stdin")
        self._writer.close()


class StdinWriter:
    """Writes clients' bytes to the container's stdin (or a terminal) and pauses the client while it is full."""

    def __init__(self, fd: int, reactor: Reactor) -> None:
        self._fd = fd
        self._reactor = reactor
        self._waiting: deque[tuple[Connection | None, bytes]] = deque()
        self._close_when_empty = False
        self.open = True
        reactor.watch(fd, 0, self._ready)

    def write(self, client: Connection | None, data: bytes) -> None:
        """Write without waiting."""
        if not self.open:
            return
        self._waiting.append((client, data))
        self._flush()

    def close(self) -> None:
        """End the container's stdin once what is queued is in."""
        self._close_when_empty = True
        if not self._waiting:
            self._shut()

    def _shut(self) -> None:
        if self.open:
            self.open = False
            self._reactor.forget(self._fd)
            os.close(self._fd)

    def _ready(self, events: int) -> None:
        if events & (select.EPOLLERR | select.EPOLLHUP):  # nobody will read it any more
            self._waiting.clear()
            self._shut()
        else:
            self._flush()

    def _flush(self) -> None:
        while self._waiting and self.open:
            client, data = self._waiting[0]
            try:
                written = os.write(self._fd, data)
            except BlockingIOError:
                written = 0
            except OSError:
                self._shut()
                return
            if written < len(data):
                self._waiting[0] = (client, data[written:])
                if client is not None:
                    client.pause_reading(True)
                self._reactor.change(self._fd, WRITE)
                return
            self._waiting.popleft()
            if client is not None:
                client.pause_reading(False)
        if self.open:
            self._reactor.change(self._fd, 0)
            if self._close_when_empty:
                self._shut()
