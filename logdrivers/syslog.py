"""The ``syslog`` log driver: Docker's options, and sinks to a syslog server or the host's own socket.

Lines come from the journal, so a server that is away costs nothing but time. The bytes are made in
``logdrivers/codecs/syslog.py``; retrying is ``logdrivers/delivery.py``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from logdrivers.codecs.syslog import FACILITIES, FORMATS, SyslogEncoder
from logdrivers.driver import Info, OptionError, Sink
from logdrivers.journaled import JOURNALED_OPTIONS, JournaledDriver
from logdrivers.options import check_known, parse_int
from logdrivers.sinks.datagrams import Pace, parse_rate
from logdrivers.sinks.syslog import SyslogDatagramSink, SyslogStreamSink
from logdrivers.sinks.syslog_address import SyslogAddress, parse_address
from logdrivers.sinks.tls import Tls, tls_options
from logdrivers.tag import DEFAULT_TAG, render_tag

__all__ = ["SyslogDriver"]

#: Ours beside Docker's options: how a stream is cut into messages, and how fast datagrams leave.
_FRAMING_OPTION = "syslog-framing"
_RATE_OPTION = "syslog-udp-rate"
_FRAMINGS = ("octet-counted", "lf")
_KNOWN = JOURNALED_OPTIONS | {
    "syslog-address",
    "syslog-facility",
    "syslog-format",
    *tls_options("syslog"),
    _FRAMING_OPTION,
    _RATE_OPTION,
}
_DAEMON = FACILITIES["daemon"]


class SyslogDriver(JournaledDriver):
    """Docker's ``syslog``, with a journal before it."""

    name = "syslog"

    def validate(self, options: Mapping[str, str]) -> None:
        """Refuse what Docker refuses, in its words, and what cannot work: templates, patterns, certificates."""
        check_known(self.name, options, _KNOWN)
        address = parse_address(options.get("syslog-address", ""))
        _facility(options)
        _format(options)
        _octet_counted(options, address)
        parse_rate(_RATE_OPTION, options.get(_RATE_OPTION))
        if address.scheme == "tcp+tls":
            _tls(options).context()
        super().validate(options)

    def sink(self, info: Info) -> Sink:
        """A sink to ``syslog-address``, not yet connected."""
        options = info.options
        address = parse_address(options.get("syslog-address", ""))
        encoder = SyslogEncoder(
            render_tag(options.get("tag") or DEFAULT_TAG, info),
            info.hostname,
            os.getpid(),
            _facility(options),
            _format(options),
            _octet_counted(options, address),
        )
        if address.stream:
            return SyslogStreamSink(address, encoder, _tls(options) if address.scheme == "tcp+tls" else None)
        rate = parse_rate(_RATE_OPTION, options.get(_RATE_OPTION)) if address.scheme == "udp" else 0
        return SyslogDatagramSink(address, encoder, Pace(rate))


def _facility(options: Mapping[str, str]) -> int:
    text = options.get("syslog-facility", "")
    if not text:
        return _DAEMON
    if text in FACILITIES:
        return FACILITIES[text]
    try:
        number = parse_int(text)
    except OptionError:
        number = -1
    if not 0 <= number <= 23:
        raise OptionError("invalid syslog facility")
    return number


def _format(options: Mapping[str, str]) -> str:
    form = options.get("syslog-format", "")
    if form not in FORMATS:
        raise OptionError("Invalid syslog format")
    return form


def _octet_counted(options: Mapping[str, str], address: SyslogAddress) -> bool:
    """Docker counts RFC 5424 over TLS only; the option says otherwise for any connection."""
    framing = options.get(_FRAMING_OPTION, "")
    if not framing:
        return address.scheme == "tcp+tls" and _format(options).startswith("rfc5424")
    if framing not in _FRAMINGS:
        raise OptionError(f"invalid {_FRAMING_OPTION}: {framing}, expected octet-counted or lf")
    if not address.stream:
        raise OptionError(f"{_FRAMING_OPTION} is only valid for tcp, tcp+tls and unix")
    return framing == "octet-counted"


def _tls(options: Mapping[str, str]) -> Tls:
    ca_cert, cert, key, skip_verify = tls_options("syslog")
    skip = options.get(skip_verify)
    return Tls(
        options.get(ca_cert, ""),
        options.get(cert, ""),
        options.get(key, ""),
        # Docker looks whether the option is there, not at its value; a plain "no" is heeded here.
        skip is not None and skip.lower() not in ("0", "f", "false"),
    )
