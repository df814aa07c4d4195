"""The ``fluentd`` log driver: Docker's, with a shared key, packed chunks, compression and TLS beside it.

Lines come from the journal, so starting never waits for the server and the options that size Docker's
buffers and retries are accepted without effect. Options are ``logdrivers/fluentd_options.py``, sending is
``logdrivers/sinks/fluentd.py``, retrying ``logdrivers/delivery.py``.
"""

from __future__ import annotations

from collections.abc import Mapping

from logdrivers.codecs.forward import ForwardEncoder
from logdrivers.driver import Info, Sink
from logdrivers.fluentd_options import (
    FLUENTD_OPTIONS,
    check_options,
    flag,
    message_mode,
    parse_address,
    seconds,
    secrets,
    tls,
)
from logdrivers.journaled import JOURNALED_OPTIONS, JournaledDriver
from logdrivers.options import check_known
from logdrivers.sinks.fluentd import READ_SECONDS, WRITE_SECONDS, FluentdSink
from logdrivers.tag import DEFAULT_TAG, render_tag

__all__ = ["FluentdDriver"]


class FluentdDriver(JournaledDriver):
    """Docker's ``fluentd``, with a journal before it."""

    name = "fluentd"

    def validate(self, options: Mapping[str, str]) -> None:
        """Refuse what Docker refuses, in its words, and templates, patterns, keys and files that cannot work."""
        check_known(self.name, options, JOURNALED_OPTIONS | FLUENTD_OPTIONS)
        check_options(options)
        super().validate(options)

    def sink(self, info: Info) -> Sink:
        """A sink to ``fluentd-address``, not yet connected."""
        options = info.options
        address = parse_address(options.get("fluentd-address", ""))
        tag = render_tag(options.get("tag") or DEFAULT_TAG, info)
        return FluentdSink(
            address,
            ForwardEncoder(info, tag, flag(options, "fluentd-sub-second-precision")),
            mode=message_mode(options),
            request_ack=flag(options, "fluentd-request-ack"),
            tls=tls(options, address),
            secrets=secrets(options, info.hostname),
            write_seconds=seconds(options, "fluentd-write-timeout", WRITE_SECONDS),
            read_seconds=seconds(options, "fluentd-read-timeout", READ_SECONDS),
        )
