"""The syslog driver: Docker's words and bytes, and every kind of socket."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_sink import udp_port
from held_port import hold_port

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs.syslog import FORMATS
from logdrivers.codecs.syslog_decode import FrameReader, decode
from logdrivers.driver import Info, OptionError, Rejected, Sink, SinkDown
from logdrivers.sinks import syslog as syslog_sinks
from logdrivers.syslog import SyslogDriver

NS = 1_795_203_851_793_023_000
DRIVER = SyslogDriver()


def lines(*texts: bytes, stream: Stream = Stream.STDOUT) -> Block:
    data = b"".join(text + b"\n" for text in texts)
    return Block(data, Encoding.LINES, stream, NS, NS, len(texts))


def sink(address: str, **options: str) -> Sink:
    chosen = {"syslog-address": address, **{k.replace("_", "-"): v for k, v in options.items()}}
    DRIVER.validate(chosen)
    info = Info(
        "0123456789abcdef" * 4, "/web", "", "shop/web", ("sh",), 0, Path("/none"), chosen, hostname="host-7"
    )
    made = DRIVER.sink(info)
    assert made is not None
    return made


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    yield path
    shutil.rmtree(path)


# --- options ---

REFUSED = [
    {"syslog-address": "foo"},
    {"syslog-address": "http://a"},
    {"syslog-address": "udp://h:x"},
    {"syslog-address": "unix://"},
    {"syslog-address": "udp://[::1"},
    {"syslog-address": "udp://a:b:c"},
    {"syslog-facility": "foo"},
    {"syslog-facility": "24"},
    {"syslog-facility": "-1"},
    {"syslog-format": "x"},
    {"foo": "1"},
    {"syslog-address": "tcp+tls://127.0.0.1:1", "syslog-tls-ca-cert": "/nope"},
    {"syslog-address": "tcp+tls://127.0.0.1:1", "syslog-tls-cert": "/nope"},
]


@pytest.mark.parametrize("options", REFUSED, ids=str)
def test_refusals_are_dockers(docker_engine: Any, options: dict[str, str]) -> None:
    with pytest.raises(OptionError) as caught:
        DRIVER.validate(options)
    assert str(caught.value) == docker_engine.refusal("syslog", options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"syslog-address": "udp://h"},
        {"syslog-address": "tcp://[::1]:601"},
        {"syslog-address": "unix:///not/there/yet"},
        {"syslog-facility": "local7", "syslog-format": "rfc5424micro"},
        {"syslog-facility": "023"},
        {"syslog-address": "tcp://h", "syslog-framing": "octet-counted"},
        {
            "syslog-udp-rate": "0",
            "journal-max-size": "1m",
            "mode": "non-blocking",
            "labels": "a",
            "tag": "{{.Name}}",
        },
    ],
    ids=str,
)
def test_what_is_accepted(options: dict[str, str]) -> None:
    DRIVER.validate(options)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"syslog-framing": "x"}, "expected octet-counted or lf"),
        ({"syslog-address": "udp://h", "syslog-framing": "lf"}, "only valid for tcp"),
        ({"syslog-udp-rate": "fast"}, "messages per second"),
        ({"tag": "{{.Nome}}"}, "no field .Nome"),
    ],
)
def test_what_cannot_work_is_refused_at_create(options: dict[str, str], what: str) -> None:
    with pytest.raises(OptionError, match=what):
        DRIVER.validate(options)


# --- receivers ---


class Receiver:
    """Takes messages on a socket of ours until told that there are enough."""

    def __init__(self, scheme: str, directory: Path, context: ssl.SSLContext | None = None) -> None:
        unix, stream = scheme.startswith("unix"), scheme in ("tcp", "tcp+tls", "unix")
        self.server = socket.socket(
            socket.AF_UNIX if unix else socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
        )
        self.server.bind(str(directory / "log") if unix else ("127.0.0.1", 0))
        self.address = f"{scheme}://" + (
            str(directory / "log") if unix else f"127.0.0.1:{self.server.getsockname()[1]}"
        )
        self.server.settimeout(100)
        self.stream = stream
        self._context = context
        self.raw = b""
        self.datagrams: list[bytes] = []
        self._changed = threading.Condition()
        if stream:
            self.server.listen()
        else:
            self.server.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        self._thread = threading.Thread(target=self._accept if stream else self._datagrams, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            try:
                if self._context is not None:
                    connection = self._context.wrap_socket(connection, server_side=True)
            except OSError:  # a client that does not trust us, or that we do not
                connection.close()
                continue
            with connection, contextlib.suppress(OSError):  # a client that does not read to our end resets it
                while data := connection.recv(65536):
                    with self._changed:
                        self.raw += data
                        self._changed.notify()

    def _datagrams(self) -> None:
        while True:
            try:
                data = self.server.recv(1 << 17)
            except OSError:
                return
            with self._changed:
                if data == b"stop":
                    return
                self.datagrams.append(data)
                self._changed.notify()

    def messages(self) -> list[bytes]:
        """Without their newline."""
        if not self.stream:
            return [datagram.removesuffix(b"\n") for datagram in self.datagrams]
        reader = FrameReader()
        return reader.feed(self.raw)

    def wait(self, count: int) -> list[bytes]:
        """The messages, once there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.messages()) >= count, 100), self.messages()
            return self.messages()

    def close(self) -> None:
        self.server.close()


@pytest.fixture
def receiver(directory: Path) -> Iterator[Callable[..., Receiver]]:
    made: list[Receiver] = []

    def make(scheme: str, context: ssl.SSLContext | None = None) -> Receiver:
        made.append(Receiver(scheme, directory, context))
        return made[-1]

    yield make
    for one in made:
        one.close()


def server_context(certificate: Path, client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificate / "cert.pem")
    return context


# --- Docker's own driver beside ours ---

SCRIPT = (
    "printf 'plain <&> \"q\" tab\\tend\\n\\n\\r\\n\\377\\376 caf\\303\\251\\n';"
    " head -c 16385 /dev/zero | tr '\\0' x; echo;"
    " sleep 0.2; echo err >&2; sleep 0.2; printf 'no newline'"
)
WRITTEN = [
    lines(b'plain <&> "q" tab\tend', b"", b"\r", b"\xff\xfe caf\xc3\xa9"),
    Block(b"x" * 16384, Encoding.LINES, Stream.STDOUT, NS, NS, 1, Partial("a" * 64, 1, False)),
    Block(b"x", Encoding.LINES, Stream.STDOUT, NS, NS, 1, Partial("a" * 64, 2, True)),
    lines(b"err", stream=Stream.STDERR),
    Block(b"no newline", Encoding.LINES, Stream.STDOUT, NS, NS, 1, Partial("b" * 64, 1, False)),
]
_TIME = rb"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?(?:Z|[+-]\d\d:\d\d)"


def normal(message: bytes, tag: bytes) -> bytes:
    """Without what differs by sender and moment."""
    message = re.sub(rb"^(<\d+>(?:1 )?)(?:" + _TIME + rb") ", rb"\1TIME ", message)
    return re.sub(re.escape(tag) + rb"(\[| )\d+(\]| )", tag + rb"\1PID\2", message, count=1)


@pytest.mark.parametrize(
    ("scheme", "form"),
    [(scheme, form) for scheme in ("udp", "tcp", "tcp+tls", "unix", "unixgram") for form in FORMATS],
)
def test_dockers_driver_and_ours_send_the_same(
    docker_engine: Any, receiver: Callable[..., Receiver], certificate: Path, scheme: str, form: str
) -> None:
    taken = receiver(scheme, server_context(certificate) if scheme == "tcp+tls" else None)
    options = {
        "syslog-address": taken.address,
        "syslog-format": form,
        "syslog-facility": "local3",
        "tag": "{{.Name}}/{{.ID}}",
        "syslog-tls-ca-cert": str(certificate / "cert.pem"),
    }
    info = docker_engine.container("syslog", options, SCRIPT)
    tag = f"{info.container_name[1:]}/{info.container_id[:12]}".encode()
    theirs = taken.wait(7)
    raw, taken.raw = taken.raw, b""
    taken.datagrams.clear()
    DRIVER.validate(options)
    out = DRIVER.sink(info)
    assert out is not None
    with pytest.raises(Rejected) as caught:
        out.send(WRITTEN)
    assert caught.value.causes == {"empty_line": 1}
    ours = taken.wait(7)
    out.close()
    # Between streams a Docker Engine keeps no order: one after the other.
    ours, theirs = (sorted(messages, key=lambda message: message[:5]) for messages in (ours, theirs))
    assert [normal(message, tag) for message in ours] == [normal(message, tag) for message in theirs]
    assert (
        raw[:1].isdigit() == taken.raw[:1].isdigit() == (scheme == "tcp+tls" and form.startswith("rfc5424"))
    )


# --- sinks ---


@pytest.mark.parametrize("scheme", ["tcp", "unix"])
def test_counted_frames_over_any_stream(receiver: Callable[..., Receiver], scheme: str) -> None:
    taken = receiver(scheme)
    out = sink(taken.address, syslog_framing="octet-counted", syslog_format="rfc5424")
    out.send([lines(b"a", b"b"), lines(b"c")])
    assert [decode(message).text for message in taken.wait(3)] == [b"a", b"b", b"c"]
    assert taken.raw[:1].isdigit()
    out.close()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_without_an_address_lines_go_to_the_hosts_socket(
    monkeypatch: pytest.MonkeyPatch, directory: Path, receiver: Callable[..., Receiver], kind: int
) -> None:
    taken = receiver("unixgram" if kind is socket.SOCK_DGRAM else "unix")
    monkeypatch.setattr(syslog_sinks, "LOCAL_SOCKETS", (str(directory / "not"), str(directory / "log")))
    out = sink("")
    out.send([lines(b"a", b"b")])
    assert [decode(message).text for message in taken.wait(2)] == [b"a", b"b"]
    out.close()


@pytest.mark.parametrize("scheme", ["unix", "unixgram", ""])
def test_a_socket_that_is_not_there_is_a_sink_that_is_down(
    monkeypatch: pytest.MonkeyPatch, directory: Path, receiver: Callable[..., Receiver], scheme: str
) -> None:
    monkeypatch.setattr(syslog_sinks, "LOCAL_SOCKETS", (str(directory / "log"),))
    out = sink(f"{scheme}://{directory}/log" if scheme else "")
    with pytest.raises(SinkDown, match="No such file"):
        out.send([lines(b"a")])
    taken = receiver(scheme or "unixgram")
    out.send([lines(b"a")])
    assert len(taken.wait(1)) == 1
    out.close()


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_a_closed_port_is_a_sink_that_is_down(scheme: str) -> None:
    with hold_port() as held:
        port = udp_port() if scheme == "udp" else held.getsockname()[1]
        out = sink(f"{scheme}://127.0.0.1:{port}")
        for _ in range(2):
            with pytest.raises(SinkDown, match=f"127.0.0.1:{port}"):
                out.send([lines(b"a")])
        out.close()


def test_a_datagram_socket_that_nobody_reads_costs_the_deadline(
    monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    monkeypatch.setattr(syslog_sinks, "_WRITE_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(directory / "log"))
        out = sink(f"unixgram://{directory}/log")
        with pytest.raises(SinkDown, match=r"no datagram taken for unixgram://.*/log in 0.2 s"):
            out.send([lines(*[b"x" * 1000] * 5000)])
        out.close()


def test_a_datagram_beyond_the_systems_limit_is_rejected_and_the_rest_arrives(
    receiver: Callable[..., Receiver],
) -> None:
    taken = receiver("udp")
    out = sink(taken.address)
    with pytest.raises(Rejected) as caught:
        out.send([lines(b"a", b"x" * 70_000, b"b", b"")])
    assert caught.value.causes == {"too_large": 1, "empty_line": 1}
    assert [decode(message).text for message in taken.wait(2)] == [b"a", b"b"]
    out.close()


@pytest.mark.parametrize("trusted", ["ca", "skip"])
def test_tls_with_a_certificate_of_our_own(
    receiver: Callable[..., Receiver], certificate: Path, trusted: str
) -> None:
    taken = receiver("tcp+tls", server_context(certificate, client=True))
    pair = {"syslog_tls_cert": str(certificate / "cert.pem"), "syslog_tls_key": str(certificate / "key.pem")}
    ca = (
        {"syslog_tls_ca_cert": str(certificate / "cert.pem")}
        if trusted == "ca"
        else {"syslog_tls_skip_verify": "true"}
    )
    out = sink(taken.address, **pair, **ca)
    out.send([lines(b"a")])
    out.close()
    assert [decode(message).text for message in taken.wait(1)] == [b"a"]


def test_nothing_counts_as_sent_to_a_server_that_refuses_us(
    receiver: Callable[..., Receiver], certificate: Path
) -> None:
    taken = receiver("tcp+tls", server_context(certificate, client=True))
    out = sink(taken.address, syslog_tls_ca_cert=str(certificate / "cert.pem"))  # no certificate of ours
    with pytest.raises(SinkDown):
        out.send([lines(b"a")])
    out.close()


def test_a_server_that_is_not_trusted_is_a_sink_that_is_down(
    receiver: Callable[..., Receiver], certificate: Path
) -> None:
    taken = receiver("tcp+tls", server_context(certificate))
    for more in ({}, {"syslog_tls_skip_verify": "false"}):
        out = sink(taken.address, **more)
        with pytest.raises(SinkDown, match="certificate verify failed"):
            out.send([lines(b"a")])
        out.close()
