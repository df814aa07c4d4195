"""A log sink in the test's process that behaves as told, for every protocol; tests import it by name.

``Server`` is up or down, and each connection behaves as the next of its behaviours: well, or as the fault under
test. What it received is kept as messages. A sink as a process of its own is ``line_receiver.py``.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from line_receiver import Fluentd, Gelf, Message, Syslog, message_of

from logdrivers.fluentd import FluentdDriver
from logdrivers.gelf import GelfDriver
from logdrivers.journald import JournaldDriver
from logdrivers.journaled import JournaledDriver
from logdrivers.syslog import SyslogDriver

#: For each wait of a sink that an option can set.
DEADLINE_SECONDS = 0.3
Handler = Callable[[socket.socket], None]
_NUMBER = re.compile(rb"^o([0-9]+),")


@dataclass(frozen=True)
class Protocol:
    """How a driver is told where the sink is, and how the sink understands it."""

    driver: Callable[[str], JournaledDriver]
    options: Callable[[str], dict[str, str]]
    decoder: type[Gelf | Syslog | Fluentd] | None  #: None for datagrams
    family: socket.AddressFamily
    acknowledged: bool = False

    @property
    def stream(self) -> bool:
        return self.decoder is not None

    @property
    def udp(self) -> bool:
        return self.family is socket.AF_INET and not self.stream


def fluentd_options(address: str, **more: str) -> dict[str, str]:
    waits = dict.fromkeys(("fluentd-write-timeout", "fluentd-read-timeout"), f"{DEADLINE_SECONDS}s")
    return {"fluentd-address": address, **waits, **{key.replace("_", "-"): v for key, v in more.items()}}


INET, UNIX = socket.AF_INET, socket.AF_UNIX
PROTOCOLS = {
    "gelf-udp": Protocol(lambda _: GelfDriver(), lambda a: {"gelf-address": f"udp://{a}"}, None, INET),
    "gelf-tcp": Protocol(lambda _: GelfDriver(), lambda a: {"gelf-address": f"tcp://{a}"}, Gelf, INET),
    "fluentd": Protocol(lambda _: FluentdDriver(), fluentd_options, Fluentd, INET),
    "fluentd-unix": Protocol(
        lambda _: FluentdDriver(), lambda a: fluentd_options(f"unix://{a}"), Fluentd, UNIX
    ),
    "fluentd-ack": Protocol(
        lambda _: FluentdDriver(),
        lambda a: fluentd_options(a, fluentd_request_ack="true"),
        Fluentd,
        INET,
        acknowledged=True,
    ),
    "syslog-udp": Protocol(lambda _: SyslogDriver(), lambda a: {"syslog-address": f"udp://{a}"}, None, INET),
    "syslog-tcp": Protocol(
        lambda _: SyslogDriver(), lambda a: {"syslog-address": f"tcp://{a}"}, Syslog, INET
    ),
    "syslog-unix": Protocol(
        lambda _: SyslogDriver(), lambda a: {"syslog-address": f"unix://{a}"}, Syslog, UNIX
    ),
    "syslog-unixgram": Protocol(
        lambda _: SyslogDriver(), lambda a: {"syslog-address": f"unixgram://{a}"}, None, UNIX
    ),
    "journald": Protocol(JournaldDriver, lambda _: {}, None, UNIX),
}


def udp_port() -> int:
    """A port of loopback that nobody has, and that the kernel gives to nobody who asks for any: it is below those."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, first) if first > 12_000 else random.randrange(10_000, 65_000)
        with contextlib.suppress(OSError), socket.socket(INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", port))
            return port


class Server:
    """A sink in this process that behaves as told: each connection as the next of ``behaviours``, then well."""

    def __init__(self, protocol: Protocol, directory: Path, name: str = "sink") -> None:
        self.protocol = protocol
        self.behaviours: deque[Handler] = deque()
        self.accepted = 0
        self.received: list[Message] = []
        self.go_on = threading.Event()  #: set when the fault is over
        self._path = str(directory / name)
        self._listener: socket.socket | None = None
        self._connections: list[socket.socket] = []
        self.address = self._path if protocol.family is UNIX else self._reserve()

    def _reserve(self) -> str:
        """A port that nobody else gets: bound, and not listening; a bound one for datagrams would take them."""
        if self.protocol.udp:
            self._name = ("127.0.0.1", udp_port())
        else:
            self._held = self._bound(("127.0.0.1", 0))
            self._name = self._held.getsockname()
        return f"127.0.0.1:{self._name[1]}"

    def _bound(self, name: object) -> socket.socket:
        kind = socket.SOCK_STREAM if self.protocol.stream else socket.SOCK_DGRAM
        sock = socket.socket(self.protocol.family, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Little for streams, so that what is not read is noticed; for datagrams room for all of them.
        size = (16 << 10) if self.protocol.stream else (32 << 20)
        option = socket.SO_RCVBUF if self.protocol.stream else 33  # SO_RCVBUFFORCE
        sock.setsockopt(socket.SOL_SOCKET, option, size)
        sock.bind(name)  # type: ignore[arg-type]
        return sock

    def open(self, *behaviours: Handler) -> None:
        """Come up."""
        self.behaviours.extend(behaviours)
        if self.protocol.udp:
            self._listener = self._bound(self._name)
        elif self.protocol.family is UNIX:
            self._listener = self._bound(self._path)
        else:
            self._listener = self._held
        if self.protocol.stream:
            self._listener.listen()
        self._start(self._accept if self.protocol.stream else self._datagrams, self._listener)

    def down(self) -> None:
        """Go away at once, as a process that is killed: what was not read is gone, connections are reset."""
        assert self._listener is not None
        if self.protocol.stream:
            self._listener.shutdown(socket.SHUT_RDWR)
        else:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RD)
        for one in self._connections:
            reset(one)
        self._listener.close()
        self._connections.clear()
        if self.protocol.family is UNIX:
            Path(self._path).unlink()
        elif self.protocol.stream:
            self._held = self._bound(self._name)

    def close(self) -> None:
        self.go_on.set()
        if self._listener is not None and self._listener.fileno() >= 0:
            self.down()
        if self.protocol.family is INET and not self.protocol.udp:
            self._held.close()

    def marks(self) -> list[int]:
        """The numbers of the marks on the received lines."""
        return [int(number) for message in list(self.received) for number in _NUMBER.findall(message.text)]

    # --- threads

    @staticmethod
    def _start(target: Handler, sock: socket.socket) -> None:
        threading.Thread(target=target, args=(sock,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            self.accepted += 1
            handler = self.behaviours.popleft() if self.behaviours else self.serve
            self._start(handler, connection)

    def serve(self, connection: socket.socket) -> None:
        """Take everything, answer what is to be answered."""
        assert self.protocol.decoder is not None
        decoder = self.protocol.decoder()
        with contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                messages, answer = decoder.take(data)
                self.received += messages
                if answer:
                    connection.sendall(answer)
            connection.close()

    def _datagrams(self, sock: socket.socket) -> None:
        if self.behaviours:
            self.behaviours.popleft()(sock)
        with contextlib.suppress(OSError):
            while True:
                data, descriptors, _, _ = socket.recv_fds(sock, 1 << 20, 1)
                if not data and not descriptors:
                    return
                for descriptor in descriptors:
                    data = os.pread(descriptor, 1 << 24, 0)
                    os.close(descriptor)
                self.received.append(message_of(data))


def reset(connection: socket.socket) -> None:
    """Close with a reset, whatever was read."""
    with contextlib.suppress(OSError):
        if connection.family is INET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
