"""The ``gelf`` log driver: Docker's options, and what of ours is beside them: TLS, HTTP and a rate.

Lines come from the journal, so a sink that is away costs nothing but time. Addresses are
``logdrivers/sinks/gelf_address.py``, sinks ``logdrivers/sinks/gelf.py`` and ``logdrivers/sinks/gelf_http.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from logdrivers.codecs.gelf import Datagrams, GelfEncoder
from logdrivers.driver import Info, OptionError, Sink
from logdrivers.journaled import JOURNALED_OPTIONS, JournaledDriver
from logdrivers.options import check_known, go_quote, parse_bool
from logdrivers.sinks.datagrams import parse_rate
from logdrivers.sinks.gelf import GelfTcpSink, GelfUdpSink
from logdrivers.sinks.gelf_address import GelfAddress, parse_address
from logdrivers.sinks.gelf_http import GelfHttpSink, Posting
from logdrivers.sinks.tls import Tls, parse_tls, tls_options

__all__ = ["GelfDriver"]

#: Messages per second, ours beside Docker's options: UDP has no way to say "slower".
_RATE_OPTION = "gelf-udp-rate"
_UDP_ONLY = ("gelf-compression-type", "gelf-compression-level")
_TCP_ONLY = ("gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay")
_HTTP_ONLY = (
    "gelf-http-bulk",
    "gelf-http-compression",
    "gelf-http-username",
    "gelf-http-password",
    "gelf-http-password-file",
    "gelf-http-header",
)
_KNOWN = JOURNALED_OPTIONS | {
    "gelf-address",
    _RATE_OPTION,
    *_UDP_ONLY,
    *_TCP_ONLY,
    *_HTTP_ONLY,
    *tls_options("gelf"),
}
#: What a request has anyway, and what says where it ends.
_OWN_HEADERS = frozenset(
    {
        "host",
        "content-type",
        "content-length",
        "content-encoding",
        "transfer-encoding",
        "connection",
        "expect",
    }
)


class GelfDriver(JournaledDriver):
    """Docker's ``gelf``, with a journal before it."""

    name = "gelf"

    def validate(self, options: Mapping[str, str]) -> None:
        """Refuse what Docker refuses, in its words, and what cannot work: templates, patterns, certificates."""
        address = parse_address(options.get("gelf-address", ""))
        check_known(self.name, options, _KNOWN)
        for key in _UDP_ONLY:
            if key in options and address.scheme != "udp":
                raise OptionError("compression is only supported on UDP")
        for key in _TCP_ONLY:
            if key in options:
                _check_tcp_option(key, options[key], address)
        _compression(options)
        parse_rate(_RATE_OPTION, options.get(_RATE_OPTION))
        _tls(options, address, check_files=True)
        _posting(options, address).read_password()
        super().validate(options)

    def sink(self, info: Info) -> Sink:
        """A sink to ``gelf-address``, not yet connected."""
        options = info.options
        address = parse_address(options.get("gelf-address", ""))
        encoder = GelfEncoder(info)
        if address.http:
            return GelfHttpSink(address, encoder, _posting(options, address), _tls(options, address))
        if address.scheme in ("tcp", "tls"):
            return GelfTcpSink(address, encoder, _tls(options, address))
        compression, level = _compression(options)
        rate = parse_rate(_RATE_OPTION, options.get(_RATE_OPTION))
        return GelfUdpSink(address, encoder, Datagrams(encoder, compression, level), rate)


def _check_tcp_option(key: str, value: str, address: GelfAddress) -> None:
    if address.scheme not in ("tcp", "tls"):
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


def _unknown_value(key: str, value: str) -> OptionError:
    return OptionError(f"unknown value {go_quote(value)} for log opt {go_quote(key)} for gelf log driver")


def _tls(options: Mapping[str, str], address: GelfAddress, *, check_files: bool = False) -> Tls | None:
    return parse_tls(
        "gelf",
        options,
        secured=address.secured,
        addresses="tls:// and https:// addresses",
        check_files=check_files,
    )


def _posting(options: Mapping[str, str], address: GelfAddress) -> Posting:
    for key in _HTTP_ONLY:
        if key in options and not address.http:
            raise OptionError(f"{go_quote(key)} is only valid for HTTP")
    compression = options.get("gelf-http-compression", "none")
    if compression not in ("gzip", "none"):
        raise _unknown_value("gelf-http-compression", compression)
    bulk = options.get("gelf-http-bulk", "")
    try:
        in_bulk = bool(bulk) and parse_bool(bulk)
    except OptionError as error:
        raise OptionError(f"invalid gelf-http-bulk: {error}") from None
    user, word, file = (
        options.get(f"gelf-http-{name}", "") for name in ("username", "password", "password-file")
    )
    if word and file:
        raise OptionError('"gelf-http-password" and "gelf-http-password-file" exclude each other')
    if (word or file) and not user:
        raise OptionError('a password for HTTP needs "gelf-http-username"')
    if ":" in user:
        raise OptionError('"gelf-http-username" cannot have a colon')
    return Posting(
        in_bulk, compression == "gzip", user, word, file, _headers(options.get("gelf-http-header", ""))
    )


def _headers(text: str) -> tuple[tuple[str, str], ...]:
    """``Name: value``, one on each line."""
    found = []
    for line in text.splitlines():
        match = re.fullmatch(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([ -~]*?)[ \t]*", line)
        if match is None:
            raise OptionError(f'"gelf-http-header" must be Name: value, got {line}')
        if match[1].lower() in _OWN_HEADERS:
            raise OptionError(f'"gelf-http-header" cannot set {match[1]}')
        found.append((match[1], match[2]))
    return tuple(found)
