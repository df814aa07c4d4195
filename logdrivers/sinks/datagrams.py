"""Datagrams at a pace: in small bursts below a rate, because nothing tells the sender what a receiver dropped.

gelf and syslog send over UDP alike. What is in a datagram, and what to do when a sink is down, is theirs.
"""

from __future__ import annotations

import errno
import re
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial

from logdrivers.driver import OptionError, SinkDown
from logdrivers.options import go_quote
from logdrivers.sinks.dial import writable

__all__ = ["DEFAULT_RATE", "Pace", "parse_rate", "send_waiting"]

DEFAULT_RATE = 20_000  #: datagrams per second
#: Datagrams that go out in one go. A receiver's default socket buffer holds some 200 of a kilobyte; more at
#: once, and its kernel drops them unseen.
_BURST = 64


def parse_rate(option: str, text: str | None) -> int:
    """The value of a rate option of ours: messages per second, 0 for no limit. Raises OptionError."""
    if text is None:
        return DEFAULT_RATE
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise OptionError(f"{go_quote(option)} must be messages per second, 0 for no limit, got {text}")
    return int(text)


class Pace:
    """Sends for one sink at up to ``rate`` datagrams per second; 0 is without limit."""

    def __init__(self, rate: int) -> None:
        self._burst_seconds = _BURST / rate if rate else 0.0
        self._next_seconds = 0.0

    def send(
        self, sock: socket.socket, datagrams: Sequence[bytes], timeout_seconds: float, receiver: str
    ) -> int:
        """Send all over a connected, non-blocking socket; how many the system finds too large comes back.

        Raises SinkDown when none is taken in time, OSError for a socket's error (nobody listens, no route).
        """
        too_large = 0
        for start in range(0, len(datagrams), _BURST):
            self._wait()
            for datagram in datagrams[start : start + _BURST]:
                try:
                    sock.send(datagram)
                except BlockingIOError:
                    send_waiting(sock, partial(sock.send, datagram), timeout_seconds, receiver)
                except OSError as error:
                    if error.errno != errno.EMSGSIZE:
                        raise
                    too_large += 1
            # "Port unreachable" comes back behind the send it answers: ask now, not at the next line.
            if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(number, "the receiver's host answered that nobody takes datagrams there")
        return too_large

    def _wait(self) -> None:
        now = time.monotonic()
        if self._next_seconds > now:
            time.sleep(self._next_seconds - now)
        self._next_seconds = max(self._next_seconds, now) + self._burst_seconds


def send_waiting(
    sock: socket.socket, send: Callable[[], object], timeout_seconds: float, receiver: str
) -> None:
    """Call ``send``, which a full non-blocking socket refuses, until it is taken. Raises SinkDown if never."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            send()
            return
        except BlockingIOError:
            left = deadline - time.monotonic()
            if left <= 0 or not writable(sock, left):
                raise SinkDown(f"no datagram taken for {receiver} in {timeout_seconds:g} s") from None
