"""The TCP connections an input has open: limits on them and on what they left unfinished, and pausing.

Refused and lost connections are counted in the input's counters. What the bytes mean, and what becomes of a
message without its end, is the input's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from collector.inputs.received import InputCounters

__all__ = ["SenderConnection", "Senders"]


class Senders:
    """All senders connected to one input, and the bytes of their unfinished messages together."""

    def __init__(
        self,
        counters: InputCounters,
        connection_limit: int,
        pending_limit_bytes: int,
        paused: Callable[[], bool],
    ) -> None:
        self.counters = counters
        self.connection_limit = connection_limit
        self.pending_bytes = 0
        self.open: set[SenderConnection] = set()
        self.paused = paused  #: whether nothing more should be read at present
        self._pending_limit = pending_limit_bytes

    def pending_excess(self) -> str:
        """What is wrong if there are more unfinished bytes than the limit; ``""`` if there are not."""
        if self.pending_bytes > self._pending_limit:
            return f"more than {self._pending_limit} bytes of unfinished messages"
        return ""

    def pause(self) -> None:
        """Stop reading from every sender."""
        for connection in self.open:
            connection.pause()

    def resume(self) -> None:
        """Read from every sender again."""
        for connection in self.open:
            connection.resume()

    def close(self) -> None:
        """Close every connection."""
        for connection in list(self.open):
            connection.close()


class SenderConnection(asyncio.Protocol):
    """One sender. An input says in ``data_received`` what its bytes are."""

    def __init__(self, senders: Senders) -> None:
        self._senders = senders
        self._transport: asyncio.Transport | None = None  #: None once it is over
        self._accounted = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or refuse it over the limit."""
        assert isinstance(transport, asyncio.Transport)
        senders = self._senders
        if len(senders.open) >= senders.connection_limit:
            senders.counters.dropped["connections"] += 1
            transport.abort()
            return
        self._transport = transport
        senders.open.add(self)
        senders.counters.accepted += 1
        senders.counters.connections += 1
        if senders.paused():
            self.pause()

    def connection_lost(self, exc: Exception | None) -> None:
        """Settle what the sender did not finish."""
        self._finish()

    def close(self) -> None:
        """Close, and settle what the sender did not finish."""
        if self._transport is not None:
            self._hang_up(self._transport)
            self._finish()

    def _hang_up(self, transport: asyncio.Transport) -> None:
        """Close at once; an input that answers lets its answers leave first."""
        transport.abort()

    def _finish(self) -> None:
        if self._transport is None:
            return
        self._transport = None
        self._senders.open.discard(self)
        self._senders.counters.connections -= 1
        self._settle()

    def _settle(self) -> None:
        """The connection is over: take or count what has no end, and account for no bytes any more."""
        raise NotImplementedError

    def _account(self, pending_bytes: int) -> None:
        """This connection has so many unfinished bytes now."""
        self._senders.pending_bytes += pending_bytes - self._accounted
        self._accounted = pending_bytes

    def pause(self) -> None:
        """Stop reading."""
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
