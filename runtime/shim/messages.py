"""The words between engine, template and shims: JSON with file descriptors, and output frames.

A request to the template is one length-prefixed JSON object that may carry descriptors; a shim's control
socket speaks JSON lines, and after ``attach`` or ``exec`` frames with the eight-byte header that the
Docker Engine API uses, so the engine can pass them on as they are.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "CONTROL_FRAME",
    "FRAME_HEADER",
    "LOG_DRIVER_FAILED",
    "SHIM_SOCKET",
    "TEMPLATE_SOCKET",
    "connect",
    "encode_line",
    "frame",
    "receive",
    "send",
]

SHIM_SOCKET = "shim.sock"
TEMPLATE_SOCKET = "template.sock"

#: What a shim says before its log driver's own words if that is why a container does not start, as Docker does.
LOG_DRIVER_FAILED = "failed to initialize logging driver: "

#: Stream number and length (``[stream, 0, 0, 0, length BE]``, Engine API, "attach to a container").
FRAME_HEADER = struct.Struct(">BxxxI")
#: Stream number of our own frames: JSON that says how the session ended.
CONTROL_FRAME = 3

_LENGTH = struct.Struct(">I")
_MAX_MESSAGE = 16 << 20
_MAX_FDS = 8


def send(sock: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message with descriptors on a blocking socket."""
    body = json.dumps(message).encode()
    sent = socket.send_fds(sock, [_LENGTH.pack(len(body))], list(fds))
    if sent != _LENGTH.size:
        raise ConnectionError("the message's length did not go out whole")
    sock.sendall(body)


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Receive one message. Raises ConnectionError if the peer left, ValueError for what is no message."""
    header, fds, _flags, _address = socket.recv_fds(sock, _LENGTH.size, _MAX_FDS)
    try:
        header += _exactly(sock, _LENGTH.size - len(header)) if header else b""
        if not header:
            raise ConnectionError("the peer closed the connection")
        (length,) = _LENGTH.unpack(header)
        if length > _MAX_MESSAGE:
            raise ValueError(f"a message of {length} bytes; at most {_MAX_MESSAGE} are taken")
        message = json.loads(_exactly(sock, length))
        if not isinstance(message, dict):
            raise ValueError("a message has to be a JSON object")
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    for fd in fds:
        os.set_inheritable(fd, False)
    return message, fds


def _exactly(sock: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = sock.recv(size)
        if not part:
            raise ConnectionError("the peer closed the connection inside a message")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def connect(directory: Path, name: str) -> socket.socket:
    """Connect to the socket ``name`` in a directory whose path may be longer than a socket path may be."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(f"/proc/self/fd/{fd}/{name}")
    except OSError:
        sock.close()
        raise
    finally:
        os.close(fd)
    return sock


def encode_line(message: dict[str, Any]) -> bytes:
    """One JSON line of the control protocol."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def frame(stream: int, data: bytes) -> bytes:
    """One output frame."""
    return FRAME_HEADER.pack(stream, len(data)) + data
