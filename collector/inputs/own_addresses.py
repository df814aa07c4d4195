"""Whether a container's log driver sends to this collector itself.

Then its lines come in by that input, and its journal must not be read too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from collector.container import LogSource

__all__ = ["sends_to"]

#: The option with the sink's address, and what Docker takes when it is not given.
_ADDRESS_OPTION = {
    "gelf": ("gelf-address", ""),
    "fluentd": ("fluentd-address", "tcp://127.0.0.1:24224"),
    "syslog": ("syslog-address", ""),
}
_DEFAULT_PORT = {"gelf": 12201, "fluentd": 24224, "syslog": 514}
_SCHEME_PORT = {"http": 80, "https": 443}


def sends_to(log: LogSource, addresses: Iterable[str]) -> bool:
    """Whether the driver's sink is one of ``addresses`` (``host:port`` each, or the path of a socket).

    A listener on all addresses is met by every loopback address; names other than ``localhost`` are not
    resolved.
    """
    option, default = _ADDRESS_OPTION.get(log.driver, ("", ""))
    text = log.options.get(option, "") or default
    if not text:
        return False
    sink = _parse(text, _DEFAULT_PORT[log.driver])
    return any(_meets(sink, _parse(address, 0)) for address in addresses)


def _parse(text: str, default_port: int) -> tuple[str, int]:
    """Host and port; a socket's path and 0."""
    if text.startswith("/"):
        return text, 0
    parts = urlsplit(text if "://" in text else f"//{text}")
    if parts.scheme.startswith("unix"):
        return parts.path, 0
    try:
        port = parts.port
    except ValueError:
        port = None
    return parts.hostname or "127.0.0.1", port or _SCHEME_PORT.get(parts.scheme, default_port)


def _meets(sink: tuple[str, int], listener: tuple[str, int]) -> bool:
    if sink[1] != listener[1]:
        return False
    if sink[0] == listener[0]:
        return True
    host, own = _address(sink[0]), _address(listener[0])
    if host is None or own is None:
        return False
    return host == own or (own.is_unspecified and (host.is_loopback or host.is_unspecified))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        return None
