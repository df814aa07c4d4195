"""The clients attached to a container: they get its output as it comes, and may hold it back.

A client that is behind keeps the container's pipes from being read, for a while; so does one that has been
announced and is not there yet. Whatever they miss is in the log all the same.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from logdrivers.block import Stream
from runtime.shim.control import Connection
from runtime.shim.messages import CONTROL_FRAME, frame

__all__ = ["Attached"]

log = logging.getLogger(__name__)

#: Above this many bytes on their way to one attached client the pipes are not read …
_ATTACH_BYTES = 1 << 20
#: … for at most this long without the client taking any: then it is cut off, and that is counted.
_STALL_SECONDS = 10.0
#: How long the first client may take that was there before the container's start.
_AWAIT_SECONDS = 5.0


class Attached:
    """The clients that get the container's output as it comes."""

    def __init__(self) -> None:
        self._clients: dict[Connection, frozenset[Stream]] = {}
        self.cut_off = 0  #: clients cut off because they took nothing for too long
        self.cut_off_bytes = 0  #: what they had not taken by then
        self._await_until = 0.0

    def __len__(self) -> int:
        return len(self._clients)

    @property
    def awaited(self) -> bool:
        """Whether the first client has been announced and is not known to have come."""
        return bool(self._await_until)

    def await_client(self) -> None:
        """A client is about to attach, and is to get the output from its first byte."""
        self._await_until = time.monotonic() + _AWAIT_SECONDS

    def hold_back(self) -> bool:
        """Whether the pipes are not to be read now: a client is awaited, or one is behind."""
        if self._await_until:
            if not self._clients and time.monotonic() < self._await_until:
                return True
            self._await_until = 0.0
        return bool(self._clients) and self._full()

    def add(self, client: Connection, streams: frozenset[Stream]) -> None:
        """Send this client these streams from now on."""
        client.progress = time.monotonic()
        self._clients[client] = streams

    def remove(self, client: Connection) -> None:
        """Forget a client that left."""
        self._clients.pop(client, None)

    def output(self, stream: Stream, data: bytes) -> None:
        """Pass on what the container wrote."""
        wanted = [client for client, streams in self._clients.items() if stream in streams]
        if wanted:
            whole = frame(stream, data)
            for client in wanted:
                client.send(whole)

    def end(self, message: dict[str, Any]) -> None:
        """Tell every client how it ended, and let them go."""
        last = frame(CONTROL_FRAME, json.dumps(message).encode())
        for client in list(self._clients):
            client.send(last)
            client.finish()
        self._clients.clear()

    def _full(self) -> bool:
        """Whether some client has too much queued; cuts off those that have stalled."""
        full = False
        for client in list(self._clients):
            if client.queued > _ATTACH_BYTES:
                if time.monotonic() - client.progress > _STALL_SECONDS:
                    log.warning("an attached client took nothing for %g s: cut off", _STALL_SECONDS)
                    self.cut_off += 1
                    self.cut_off_bytes += client.queued
                    client.close()
                    self.remove(client)
                else:
                    full = True
        return full
