"""Entering a container's network namespace for the length of one reading, in the thread of a lane.

Nothing is kept in there: a socket that stays open would keep a dead container's namespace and its veth
alive. The thread is back in the agent's own namespace afterwards, whatever happened.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from collector.target import Target

__all__ = ["Dump", "Take", "inside", "read_file"]

_CLONE_NEWNET = 0x40000000
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_DONE, _ERROR = 3, 2
_REQUEST, _DUMP = 0x1, 0x300
_TIMEOUT = 5.0

_libc = ctypes.CDLL(None, use_errno=True)
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
        _enter(there)
    finally:
        os.close(there)
    try:
        yield
    finally:
        try:
            _enter(_home.fd)
        except OSError as error:  # to go on here would count one container's sockets for all
            raise RuntimeError(f"cannot return to the own network namespace: {error}") from error


def _enter(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot enter the network namespace: {os.strerror(number)}")


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
        flags = _REQUEST | (_DUMP if dump else 0)
        request = _HEADER.pack(_HEADER.size + len(payload), kind, flags, 1, 0) + payload
        view = memoryview(self._buffer)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, self._protocol) as asked:
            asked.settimeout(_TIMEOUT)
            asked.send(request)
            while not _parse(view[: asked.recv_into(self._buffer)], take) and dump:
                pass


def _parse(data: memoryview, take: Take) -> bool:
    """Hand on the messages of a datagram; true when the dump is at its end."""
    offset, end = 0, len(data)
    while offset + _HEADER.size <= end:
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if kind == _DONE:
            return True
        if kind == _ERROR:
            number = -struct.unpack_from("=i", data, offset + 16)[0]
            raise OSError(number, f"netlink: {os.strerror(number)}")
        if length < _HEADER.size or offset + length > end:
            raise ValueError(
                f"netlink message of {length} bytes at {offset}: expected at most {end - offset}"
            )
        take(data, offset + 16, offset + length)
        offset += (length + 3) & ~3
    return False
