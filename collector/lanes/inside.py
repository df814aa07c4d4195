"""Entering a container's network namespace for the length of one reading, in the thread of a lane.

Nothing is kept in there: a socket that stays open would keep a dead container's namespace and its veth
alive. The thread is back in the agent's own namespace afterwards, whatever happened.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

from collector.namespaces import enter
from collector.netlink_wire import DONE, DUMP, REQUEST, messages, open_socket, request
from collector.target import Target

__all__ = ["Dump", "Take", "inside", "read_file", "read_sockstat", "shared_readings"]

_home = threading.local()

#: Seconds within which groups that are read one after the other share a file.
_SHARED_SECONDS = 0.05

#: What takes one datagram: the buffer, where a message's body starts, where it ends.
Take = Callable[[memoryview, int, int], None]


@contextlib.contextmanager
def inside(target: Target) -> Iterator[None]:
    """Be in the network namespace of a container. Raises OSError when it is gone or we may not enter."""
    if not hasattr(_home, "fd"):
        _home.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = target.open_proc("ns/net")
    try:
        enter(there)
    finally:
        os.close(there)
    try:
        yield
    finally:
        try:
            enter(_home.fd)
        except OSError as error:  # to go on here would count one container's sockets for all
            raise RuntimeError(f"cannot return to the own network namespace: {error}") from error


def read_file(target: Target, name: str) -> bytes:
    """A file of the container's first process, like ``net/snmp``, whole. Raises OSError."""
    fd = target.open_proc(name)
    try:
        data = os.read(fd, 65536)
        if len(data) > 3000:  # a seq_file hands out about a page a call
            while chunk := os.read(fd, 65536):
                data += chunk
        return data
    finally:
        os.close(fd)


@contextlib.contextmanager
def shared_readings() -> Iterator[None]:
    """Inside, groups read one after the other in this thread read a container's sockets in use once for all."""
    _home.shared = {}
    try:
        yield
    finally:
        del _home.shared


def read_sockstat(target: Target) -> tuple[bytes, bytes]:
    """``net/sockstat`` and ``net/sockstat6``, the second empty without IPv6. Raises OSError."""
    shared: dict[Target, tuple[float, tuple[bytes, bytes]]] | None = getattr(_home, "shared", None)
    now = time.monotonic()
    if shared is not None and target in shared:
        when, found = shared[target]
        if now - when < _SHARED_SECONDS:
            return found
    try:
        six = read_file(target, "net/sockstat6")
    except FileNotFoundError:
        six = b""
    found = read_file(target, "net/sockstat"), six
    if shared is not None:
        shared.clear()
        shared[target] = now, found
    return found


class Dump:
    """Netlink requests of one protocol, each by a socket of its own in the namespace the thread is in."""

    def __init__(self, protocol: int) -> None:
        self._protocol = protocol
        self._buffer = bytearray(65536)  # the kernel puts at most 32 KiB into one datagram of a dump

    def opened(self) -> socket.socket:
        """A socket in the namespace the thread is in, for several requests; the caller closes it. Raises OSError."""
        return open_socket(self._protocol)

    def ask(
        self, kind: int, payload: bytes, take: Take, *, dump: bool = True, asked: socket.socket | None = None
    ) -> None:
        """Send one request and hand every message of the answer to ``take``. Raises OSError.

        A request that is no dump is answered by one message. ``asked`` is a socket to ask with, else one is opened.
        """
        with contextlib.ExitStack() as stack:
            if asked is None:
                asked = stack.enter_context(open_socket(self._protocol))
            view = memoryview(self._buffer)
            asked.send(request(kind, payload, REQUEST | (DUMP if dump else 0)))
            more = True
            while more:
                more = dump
                data = view[: asked.recv_into(self._buffer)]
                for answer, start, end in messages(data):
                    if answer == DONE:
                        more = False
                        break
                    take(data, start + 16, end)
