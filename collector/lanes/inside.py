"""Entering a container's network namespace for the length of one reading, in the thread of a lane.

Nothing is kept in there: a socket that stays open would keep a dead container's namespace and its veth
alive. The thread is back in the agent's own namespace afterwards, whatever happened.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

from collector.namespaces import enter
from collector.netlink_wire import DONE, DUMP, REQUEST, messages, open_socket, request
from collector.target import Target

__all__ = ["Dump", "Take", "inside", "read_file"]

_home = threading.local()

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


class Dump:
    """Netlink requests of one protocol, each by a socket of its own in the namespace the thread is in."""

    def __init__(self, protocol: int) -> None:
        self._protocol = protocol
        self._buffer = bytearray(65536)  # the kernel puts at most 32 KiB into one datagram of a dump

    def ask(self, kind: int, payload: bytes, take: Take, *, dump: bool = True) -> None:
        """Send one request and hand every message of the answer to ``take``. Raises OSError.

        A request that is no dump is answered by one message.
        """
        view = memoryview(self._buffer)
        with open_socket(self._protocol) as asked:
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
