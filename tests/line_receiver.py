"""A receiver of log lines as a process of its own, to be stopped and killed; tests import it by name.

``line_receiver.py PROTOCOL ADDRESS FILE`` understands just enough of gelf, fluentd, syslog and journald to find
marks in lines (``o12,`` and ``e12,``) and appends one record a message, ``MARK NUMBER ORDINAL``, to a file
before it answers anything: what is in the file survived it.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

#: What one incarnation begins its records with.
BEGIN = b"begin\n"
#: Small, so that what a kill takes from a protocol without acknowledgement is little.
RECEIVE_BUFFER = 16 << 10
_MARK = re.compile(rb"([oe])([0-9]+),")
_END = re.compile(rb"[oe0-9,]{0,16}")
_SYSLOG = re.compile(rb"<([0-9]+)>(.*?\]: )(.*)", re.DOTALL)


class Message(NamedTuple):
    """What a sink received of a line or of a piece of one."""

    text: bytes
    ordinal: int = 0  #: of a piece, where the protocol has that
    stderr: bool = False


def record(message: Message) -> bytes:
    """The record of one message; ``?`` for one without a mark that is not the short end of a long line."""
    found = _MARK.search(message.text)
    if found:
        return b"%s %s %d\n" % (*found.groups(), message.ordinal)
    return b"" if _END.fullmatch(message.text) else b"? %r\n" % message.text[:60]


class Gelf:
    """Frames that a zero byte ends."""

    def __init__(self) -> None:
        self._data = b""

    def take(self, data: bytes) -> tuple[list[Message], bytes]:
        """What is whole, and the answer to the sender."""
        *frames, self._data = (self._data + data).split(b"\0")
        return list(map(_gelf, frames)), b""


class Syslog:
    """Messages that a newline ends."""

    def __init__(self) -> None:
        self._data = b""

    def take(self, data: bytes) -> tuple[list[Message], bytes]:
        """What is whole, and the answer to the sender."""
        *frames, self._data = (self._data + data).split(b"\n")
        return list(map(_syslog, frames)), b""


class Fluentd:
    """Single messages and packed chunks; a chunk with an id is acknowledged."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(raw=True, max_buffer_size=1 << 28)

    def take(self, data: bytes) -> tuple[list[Message], bytes]:
        """What is whole, and the answer to the sender."""
        self._unpacker.feed(data)
        messages, answers = [], []
        for message in self._unpacker:
            option = message[-1] if len(message) > 2 and b"chunk" in message[-1] else {}
            for entry in self._entries(message):
                ordinal = int(entry.get(b"partial_ordinal", b"0"))
                messages.append(Message(entry[b"log"], ordinal, entry[b"source"] == b"stderr"))
            if option:
                answers.append(msgpack.packb({"ack": option[b"chunk"].decode()}))
        return messages, b"".join(answers)

    def _entries(self, message: list[Any]) -> list[dict[bytes, bytes]]:
        if isinstance(message[1], bytes):
            unpacker = msgpack.Unpacker(raw=True, max_buffer_size=1 << 28)
            unpacker.feed(message[1])
            return [entry for _, entry in unpacker]
        return [message[2]]


def message_of(datagram: bytes) -> Message:
    """A datagram, or a file handed over: GELF (gzip or plain), syslog, or an entry for journald."""
    if datagram.startswith(b"\x1f\x8b"):
        return _gelf(gzip.decompress(datagram))
    if datagram.startswith(b"{"):
        return _gelf(datagram)
    return _syslog(datagram) if datagram.startswith(b"<") else _journald(datagram)


def _gelf(frame: bytes) -> Message:
    value = json.loads(frame)
    return Message(value["short_message"].encode(), 0, value["level"] == 3)


def _syslog(frame: bytes) -> Message:
    priority, _, text = _SYSLOG.fullmatch(frame.removesuffix(b"\n")).groups()  # type: ignore[union-attr]
    return Message(text, 0, int(priority) & 7 == 3)


def _journald(entry: bytes) -> Message:
    fields: dict[bytes, bytes] = {}
    while entry:
        name, equals, rest = entry.partition(b"\n")[0].partition(b"=")
        if equals:
            fields[name], entry = rest, entry[len(name) + len(rest) + 2 :]
        else:  # the value's length comes before it
            begin = len(name) + 9
            end = begin + int.from_bytes(entry[begin - 8 : begin], "little")
            fields[name], entry = entry[begin:end], entry[end + 1 :]
    ordinal = int(fields.get(b"CONTAINER_PARTIAL_ORDINAL", b"0"))
    return Message(fields[b"MESSAGE"], ordinal, fields[b"PRIORITY"] == b"3")


PROTOCOLS: dict[str, type[Gelf | Syslog | Fluentd]] = {"gelf": Gelf, "syslog": Syslog, "fluentd": Fluentd}


def append(file: int, data: bytes) -> None:
    """Write all of it."""
    while data:
        data = data[os.write(file, data) :]


def serve_stream(protocol: str, address: str, file: int) -> None:
    """Until killed: any number of connections, one thread."""
    host, _, port = address.rpartition(":")
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    listener.bind((host, int(port)))
    listener.listen(64)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ, None)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                selector.register(listener.accept()[0], selectors.EVENT_READ, PROTOCOLS[protocol]())
                continue
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            with contextlib.suppress(ConnectionError):
                if data := sock.recv(65536):
                    messages, answer = key.data.take(data)
                    append(file, b"".join(map(record, messages)))
                    sock.sendall(answer)
                    continue
            selector.unregister(sock)
            sock.close()


def serve_datagrams(path: str, file: int) -> None:
    """Until killed: a datagram, or a file handed over, is a message."""
    Path(path).unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(path)
    while True:
        data, descriptors, _, _ = socket.recv_fds(sock, 1 << 20, 1)
        for descriptor in descriptors:
            data = os.pread(descriptor, 1 << 24, 0)
            os.close(descriptor)
        append(file, record(message_of(data)))


@dataclass
class Receiver:
    """A receiver's process, from a test's side: it can be killed and comes back at its address."""

    protocol: str  #: a key of ``PROTOCOLS``, or ``datagrams``
    address: str  #: ``host:port``, or a path for datagrams
    file: Path
    process: subprocess.Popen[bytes] | None = None
    stopped_until: float = 0.0  #: on the monotonic clock, as ``back_at``
    back_at: float = 0.0
    kills: int = 0

    def start(self) -> None:
        """Start the process."""
        self.process = subprocess.Popen(
            [sys.executable, "-P", __file__, self.protocol, self.address, str(self.file)],
            stdin=subprocess.DEVNULL,
        )

    def stop(self, until: float) -> None:
        """SIGSTOP: what comes now waits in the kernel, for a kill to take it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        self.stopped_until = until

    def go_on(self) -> None:
        """SIGCONT."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        self.stopped_until = 0.0

    def kill(self, seconds: float) -> None:
        """SIGKILL; the test brings it back after so long."""
        self.end()
        self.kills += 1
        self.back_at = time.monotonic() + seconds

    def end(self) -> None:
        """End the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        self.stopped_until = 0.0

    def incarnations(self) -> list[list[tuple[str, int, int]]]:
        """The records of each life: stream, number, ordinal."""
        lives: list[list[tuple[str, int, int]]] = []
        for text in self.file.read_bytes().split(b"\n"):
            if text == b"begin":
                lives.append([])
            elif found := re.fullmatch(rb"([oe]) (\d+) (\d+)", text):
                lives[-1].append((found[1].decode(), int(found[2]), int(found[3])))
            else:  # a kill leaves less than a record, at the end of a life
                assert not text.startswith(b"?"), text
        return lives


def main() -> None:
    """Serve what the arguments say."""
    protocol, address, path = sys.argv[1:]
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    append(file, b"\n" + BEGIN)  # the record before may be torn
    if address.startswith("/"):
        serve_datagrams(address, file)
    else:
        serve_stream(protocol, address, file)


if __name__ == "__main__":
    main()
