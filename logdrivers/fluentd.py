"""The ``fluentd`` log driver: Docker's options, and a sink that speaks the Forward protocol.

Lines come from the journal, so starting never waits for the server and the options that size Docker's
buffers and retries are accepted without effect. The bytes are made in ``logdrivers/codecs/forward.py``;
retrying is ``logdrivers/delivery.py``.
"""

from __future__ import annotations

import base64
import os
import re
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgpack

from logdrivers.block import Block
from logdrivers.codecs.forward import ForwardEncoder
from logdrivers.dial import write
from logdrivers.driver import Info, OptionError, Sink, SinkDown
from logdrivers.journaled import JOURNALED_OPTIONS, JournaledDriver
from logdrivers.options import (
    check_known,
    go_quote,
    parse_bool,
    parse_bytes_binary,
    parse_duration,
)
from logdrivers.stream_sink import StreamSink
from logdrivers.tag import DEFAULT_TAG, render_tag

__all__ = ["FluentdAddress", "FluentdDriver", "FluentdSink", "parse_address"]

# fluent-logger packs and sends one event per call, keeps no acknowledgement and drops what overflows its
# buffer; blocks, chunks with an answer, and SinkDown need our own sender. Tests use it as a foreign client.

_CONNECT_SECONDS = 3.0
#: Docker waits for ever where no timeout is given; ours are then these.
_WRITE_SECONDS = 10.0
_READ_SECONDS = 60.0
_FLAGS = ("fluentd-async", "fluentd-async-connect", "fluentd-sub-second-precision", "fluentd-request-ack")
_DURATIONS = ("fluentd-retry-wait", "fluentd-write-timeout", "fluentd-read-timeout")
_INTERVAL = "fluentd-async-reconnect-interval"
_KNOWN = JOURNALED_OPTIONS | {
    "fluentd-address",
    "fluentd-buffer-limit",
    "fluentd-max-retries",
    _INTERVAL,
    *_FLAGS,
    *_DURATIONS,
}


@dataclass(frozen=True, slots=True)
class FluentdAddress:
    """Where messages go: ``tcp`` or ``tls`` with host and port, ``unix`` with a path."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.scheme == "unix" else f"{self.scheme}://{self.host}:{self.port}"


def parse_address(text: str) -> FluentdAddress:
    """The ``fluentd-address`` option; ``tcp``, 127.0.0.1 and 24224 are filled in. Raises OptionError."""
    try:
        return _parse_url(text if "://" in text else "tcp://" + text)
    except ValueError as error:
        raise OptionError(f"invalid fluentd-address ({text}): {error}") from None


def _parse_url(text: str) -> FluentdAddress:
    url = urlsplit(text)
    if url.scheme == "unix":
        if not url.path.lstrip("/"):
            raise ValueError("path is empty")
        return FluentdAddress("unix", path=url.path)
    if url.scheme not in ("tcp", "tls"):
        raise ValueError(f"unsupported scheme: '{url.scheme}'")
    if url.path:
        raise ValueError("should not contain a path element")
    if re.search(r"[\s<>\"]", url.netloc):
        raise ValueError("invalid character in host name")
    if url.hostname and ":" in url.netloc.rpartition(":")[0] and not url.netloc.startswith("["):
        raise ValueError("too many colons in address")
    return FluentdAddress(url.scheme, url.hostname or "127.0.0.1", 24224 if url.port is None else url.port)


class FluentdDriver(JournaledDriver):
    """Docker's ``fluentd``, with a journal before it."""

    name = "fluentd"

    def validate(self, options: Mapping[str, str]) -> None:
        """Refuse what Docker refuses, in its words, and templates and patterns that cannot work."""
        check_known(self.name, options, _KNOWN)
        parse_address(options.get("fluentd-address", ""))
        if options.get("fluentd-buffer-limit"):
            parse_bytes_binary(options["fluentd-buffer-limit"])
        for key in _DURATIONS:
            if options.get(key):
                parse_duration(options[key])
        _check_retries(options.get("fluentd-max-retries", ""))
        if "fluentd-async" in options and "fluentd-async-connect" in options:
            raise OptionError(
                "conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect'"
            )
        for key in _FLAGS:
            _flag(options, key)
        _check_interval(options.get(_INTERVAL, ""))
        super().validate(options)

    def sink(self, info: Info) -> Sink:
        """A sink to ``fluentd-address``, not yet connected."""
        options = info.options
        tag = render_tag(options.get("tag") or DEFAULT_TAG, info)
        return FluentdSink(
            parse_address(options.get("fluentd-address", "")),
            ForwardEncoder(info, tag, _flag(options, "fluentd-sub-second-precision")),
            request_ack=_flag(options, "fluentd-request-ack"),
            write_seconds=_seconds(options, "fluentd-write-timeout", _WRITE_SECONDS),
            read_seconds=_seconds(options, "fluentd-read-timeout", _READ_SECONDS),
        )


def _flag(options: Mapping[str, str], key: str) -> bool:
    return bool(options.get(key)) and parse_bool(options[key])


def _seconds(options: Mapping[str, str], key: str, default: float) -> float:
    given = parse_duration(options[key]) if options.get(key) else 0.0
    return given if given > 0 else default


def _check_retries(text: str) -> None:
    if not text:
        return
    if not re.fullmatch(r"[0-9]+", text):
        raise OptionError(f"strconv.ParseUint: parsing {go_quote(text)}: invalid syntax")
    if int(text) > 2**31 - 1:
        raise OptionError("invalid fluentd-max-retries: value out of range")


def _check_interval(text: str) -> None:
    if not text:
        return
    seconds = parse_duration(text)
    if seconds and not 0.1 <= seconds <= 10:
        raise OptionError(
            f"invalid value for {_INTERVAL}: value ({go_quote(text)}) must be between 100ms and 10s"
        )


class FluentdSink(StreamSink):
    """Messages over one connection, in Docker's bytes; with acknowledgement, one packed chunk per block."""

    def __init__(
        self,
        address: FluentdAddress,
        encoder: ForwardEncoder,
        *,
        request_ack: bool = False,
        write_seconds: float = _WRITE_SECONDS,
        read_seconds: float = _READ_SECONDS,
    ) -> None:
        super().__init__(address.host, address.port, _CONNECT_SECONDS, path=address.path, name=str(address))
        self._address = address
        self._encoder = encoder
        self._request_ack = request_ack
        self._write_seconds = write_seconds
        self._read_seconds = read_seconds
        #: Chunk ids of blocks sent but not acknowledged: sent again, they keep their id, so that a server
        #: that has them can tell.
        self._unanswered: list[tuple[Block, str]] = []

    def send(self, blocks: Sequence[Block]) -> None:
        """Return when the server's host has all blocks, or, with acknowledgement, the server has. SinkDown."""
        blocks = [block for block in blocks if block.lines]
        self._speak(lambda sock: self._send_blocks(sock, blocks))

    def _send_blocks(self, sock: socket.socket, blocks: Sequence[Block]) -> None:
        if self._request_ack:
            self._send_chunks(sock, blocks)
        else:
            data = b"".join([self._encoder.messages(block) for block in blocks])
            write(sock, data, self._write_seconds)

    def _send_chunks(self, sock: socket.socket, blocks: Sequence[Block]) -> None:
        again = self._unanswered
        self._unanswered = [
            (block, again[i][1] if i < len(again) and again[i][0] == block else _new_chunk())
            for i, block in enumerate(blocks)
        ]
        sock.settimeout(self._write_seconds)
        # Answers are some 35 bytes a block: they wait in the receive buffer until all is written.
        for block, chunk in list(self._unanswered):
            sock.sendall(self._encoder.packed(block, chunk))
        self._await_acks(sock, {chunk.encode() for _, chunk in self._unanswered})
        self._unanswered = []

    def _await_acks(self, sock: socket.socket, open_chunks: set[bytes]) -> None:
        deadline = time.monotonic() + self._read_seconds
        answers = msgpack.Unpacker(raw=True, max_buffer_size=1 << 20)
        while open_chunks:
            left = deadline - time.monotonic()
            sock.settimeout(max(left, 0.001))
            try:
                data = sock.recv(65536)
            except TimeoutError:
                raise SinkDown(
                    f"{self._address} has not acknowledged {len(open_chunks)} chunks in {self._read_seconds:g} s"
                ) from None
            if not data:
                raise SinkDown(f"{self._address} closed with {len(open_chunks)} chunks not acknowledged")
            try:
                answers.feed(data)
                for answer in answers:
                    if isinstance(answer, dict):
                        open_chunks.discard(answer.get(b"ack", b""))
            except (ValueError, msgpack.UnpackException) as error:
                raise SinkDown(f"{self._address} answered what is no acknowledgement: {error}") from error

    def _secure(self, sock: socket.socket) -> socket.socket:
        if self._address.scheme != "tls":
            return sock
        return ssl.create_default_context().wrap_socket(sock, server_hostname=self._address.host)


def _new_chunk() -> str:
    return base64.b64encode(os.urandom(16)).decode()
