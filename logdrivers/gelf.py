"""The ``gelf`` log driver: Docker's options, and a sink that sends to a Graylog input over UDP or TCP.

Lines come from the journal, so a sink that is away costs nothing but time. The bytes are made in
``logdrivers/codecs/gelf.py``; retrying is ``logdrivers/delivery.py``.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from logdrivers.block import Block
from logdrivers.codecs.gelf import Datagrams, GelfEncoder
from logdrivers.datagrams import DEFAULT_RATE, Pace, parse_rate
from logdrivers.dial import Dialer
from logdrivers.driver import EMPTY_LINE, Info, OptionError, Rejected, Sink, SinkDown
from logdrivers.journaled import JOURNALED_OPTIONS, JournaledDriver
from logdrivers.options import check_known, go_quote
from logdrivers.stream_sink import FrameSink

__all__ = ["GelfAddress", "GelfDriver", "GelfTcpSink", "GelfUdpSink", "parse_address"]

_CONNECT_SECONDS = 10.0
_WRITE_SECONDS = 10.0
#: Messages per second, ours beside Docker's options: UDP has no way to say "slower".
_RATE_OPTION = "gelf-udp-rate"
_UDP_ONLY = ("gelf-compression-type", "gelf-compression-level")
_TCP_ONLY = ("gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay")
_KNOWN = JOURNALED_OPTIONS | {"gelf-address", _RATE_OPTION, *_UDP_ONLY, *_TCP_ONLY}
_TRANSPORTS = ("tcp://", "tcp+tls://", "udp://", "unix://", "unixgram://")


@dataclass(frozen=True, slots=True)
class GelfAddress:
    """Where messages go: ``udp`` or ``tcp``."""

    scheme: str
    host: str
    port: int


def parse_address(text: str) -> GelfAddress:
    """The ``gelf-address`` option. Raises OptionError in Docker's words."""
    if not text:
        raise OptionError("gelf-address is a required parameter")
    if not text.startswith(_TRANSPORTS):
        raise OptionError(f"gelf-address should be in form proto://address, got {text}")
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise OptionError(f"parse {go_quote(text)}: {error}") from None
    if url.scheme not in ("udp", "tcp"):
        raise OptionError("gelf: endpoint needs to be TCP or UDP")
    if port is None:
        raise OptionError("gelf: please provide gelf-address as proto://host:port")
    if re.search(r"[\s<>\"]", url.netloc):
        raise OptionError(f"parse {go_quote(text)}: invalid character in host name")
    return GelfAddress(url.scheme, url.hostname or "", port)


class GelfDriver(JournaledDriver):
    """Docker's ``gelf``, with a journal before it."""

    name = "gelf"

    def validate(self, options: Mapping[str, str]) -> None:
        """Refuse what Docker refuses, in its words, and templates and patterns that cannot work."""
        address = parse_address(options.get("gelf-address", ""))
        check_known(self.name, options, _KNOWN)
        for key in _UDP_ONLY:
            if key in options and address.scheme != "udp":
                raise OptionError("compression is only supported on UDP")
        for key in _TCP_ONLY:
            if key in options:
                _check_tcp_option(key, options[key], address)
        _compression(options)
        _rate(options)
        super().validate(options)

    def sink(self, info: Info) -> Sink:
        """A sink to ``gelf-address``, not yet connected."""
        address = parse_address(info.options.get("gelf-address", ""))
        encoder = GelfEncoder(info)
        if address.scheme == "tcp":
            return GelfTcpSink(address, encoder)
        compression, level = _compression(info.options)
        return GelfUdpSink(address, encoder, Datagrams(encoder, compression, level), _rate(info.options))


def _check_tcp_option(key: str, value: str, address: GelfAddress) -> None:
    if address.scheme != "tcp":
        raise OptionError(f"{go_quote(key)} is only valid for TCP")
    if not re.fullmatch(r"\+?[0-9]+", value):
        raise OptionError(f"{go_quote(key)} must be a positive integer")


def _compression(options: Mapping[str, str]) -> tuple[str, int]:
    kind = options.get("gelf-compression-type", "gzip")
    if kind not in ("gzip", "zlib", "none"):
        raise _unknown_value("gelf-compression-type", kind)
    level = options.get("gelf-compression-level", "1")
    if not re.fullmatch(r"-1|\+?0*[0-9]", level):
        raise _unknown_value("gelf-compression-level", level)
    return kind, int(level)


def _rate(options: Mapping[str, str]) -> int:
    return parse_rate(_RATE_OPTION, options.get(_RATE_OPTION))


def _unknown_value(key: str, value: str) -> OptionError:
    return OptionError(f"unknown value {go_quote(value)} for log opt {go_quote(key)} for gelf log driver")


class GelfTcpSink(FrameSink):
    """Frames over one connection."""

    def __init__(self, address: GelfAddress, encoder: GelfEncoder) -> None:
        super().__init__(address.host, address.port, encoder, _CONNECT_SECONDS, _WRITE_SECONDS)


class GelfUdpSink:
    """Datagrams in small bursts, below a rate the receiver's buffer can take."""

    def __init__(
        self, address: GelfAddress, encoder: GelfEncoder, datagrams: Datagrams, rate: int = DEFAULT_RATE
    ) -> None:
        self._dialer = Dialer(address.host, address.port, socket.SOCK_DGRAM, _CONNECT_SECONDS)
        self._encoder = encoder
        self._datagrams = datagrams
        self._pace = Pace(rate)
        self._sock: socket.socket | None = None

    def send(self, blocks: Sequence[Block]) -> None:
        """Send every message. Raises SinkDown (nobody listens, no route), Rejected (``too_large``, ``empty_line``)."""
        empty, too_large = self._encoder.empty_lines, self._datagrams.too_large
        datagrams = [datagram for block in blocks for datagram in self._datagrams.encode(block)]
        if datagrams:
            self._send(datagrams)
        Rejected.check(
            {
                "too_large": self._datagrams.too_large - too_large,
                EMPTY_LINE: self._encoder.empty_lines - empty,
            }
        )

    def _send(self, datagrams: Sequence[bytes]) -> None:
        try:
            if self._sock is not None and self._dialer.moved(self._sock):
                self.close()
            if self._sock is None:
                self._sock = self._dialer.connect()
                self._sock.setblocking(False)
            self._pace.send(self._sock, datagrams, _WRITE_SECONDS, str(self._dialer))
        except OSError as error:
            self.close()
            raise SinkDown(f"cannot send to {self._dialer}: {error}") from error
        except SinkDown:
            self.close()
            raise

    def close(self) -> None:
        """Give up the socket at once."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
