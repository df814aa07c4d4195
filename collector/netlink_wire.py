"""Netlink's messages and attributes, whatever the protocol: framing, the kernel's errors, a socket to ask with.

What the messages say is left to those who ask: links (``netlink.py``), sockets and connection tracking
(``lanes/``, ``processes/``). Formats: netlink(7), linux/netlink.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import TypeVar

__all__ = [
    "DONE",
    "DUMP",
    "ERROR",
    "HEADER",
    "REQUEST",
    "attribute",
    "attributes",
    "messages",
    "open_socket",
    "raise_error",
    "request",
]

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
ERROR, DONE = 2, 3
REQUEST, DUMP = 0x1, 0x300
_ATTRIBUTE = struct.Struct("=HH")
_TIMEOUT = 5.0

Data = TypeVar("Data", bytes, memoryview)


def open_socket(protocol: int) -> socket.socket:
    """A netlink socket in this thread's namespace, with a time limit. Raises OSError."""
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    opened.settimeout(_TIMEOUT)
    return opened


def request(kind: int, payload: bytes, flags: int = REQUEST | DUMP) -> bytes:
    """One message to the kernel."""
    return HEADER.pack(HEADER.size + len(payload), kind, flags, 1, 0) + payload


def messages(data: bytes | memoryview) -> Iterator[tuple[int, int, int]]:
    """Type, start (of the header) and end of each message of a datagram; the last of a dump is ``DONE``.

    Raises OSError for the kernel's error message, and for a length that cannot be.
    """
    offset, size = 0, len(data)
    while offset + HEADER.size <= size:
        length, kind, _flags, _sequence, _port = HEADER.unpack_from(data, offset)
        if kind == ERROR:
            raise_error(data, offset)
        if not HEADER.size <= length <= size - offset:
            raise OSError(
                errno.EBADMSG,
                f"netlink: a message of {length} bytes at {offset}, expected {HEADER.size} to {size - offset}",
            )
        yield kind, offset, offset + length
        offset += (length + 3) & ~3


def raise_error(data: bytes | memoryview, offset: int) -> None:
    """Raise the OSError that an error message stands for."""
    number = -struct.unpack_from("=i", data, offset + HEADER.size)[0]
    raise OSError(number, f"netlink: {os.strerror(number)}")


def attributes(data: Data, offset: int, end: int) -> Iterator[tuple[int, Data]]:
    """Type and value of each ``struct nlattr`` between two offsets."""
    while offset + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def attribute(data: Data, offset: int, end: int, wanted: int) -> Data | None:
    """The first attribute of that type between two offsets."""
    while offset + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return None
        if kind & 0x3FFF == wanted:
            return data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return None
