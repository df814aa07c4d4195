"""``gelf-address``: where messages go, and by which of the protocols that carry GELF."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from logdrivers.driver import OptionError
from logdrivers.options import go_quote

__all__ = ["GelfAddress", "parse_address"]

#: What Docker reads as an address (only the first two of it may be used), and ours.
_TRANSPORTS = ("tcp://", "udp://", "tcp+tls://", "unix://", "unixgram://")
_OURS = ("tls://", "http://", "https://")
_SCHEMES = {"tcp+tls": "tls"}
_DEFAULT_PORTS = {"http": 80, "https": 443}
#: Where Graylog's GELF HTTP input takes messages.
_DEFAULT_TARGET = "/gelf"


@dataclass(frozen=True, slots=True)
class GelfAddress:
    """``udp``, ``tcp``, ``tls``, ``http`` or ``https``; the last two with a path, and a query if there is one."""

    scheme: str
    host: str
    port: int
    target: str = ""

    @property
    def http(self) -> bool:
        """Whether messages are posted."""
        return self.scheme in _DEFAULT_PORTS

    @property
    def secured(self) -> bool:
        """Whether there is TLS around the connection."""
        return self.scheme in ("tls", "https")

    @property
    def authority(self) -> str:
        """Host and port as HTTP's ``Host`` has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host or "localhost"
        return host if _DEFAULT_PORTS.get(self.scheme) == self.port else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def parse_address(text: str) -> GelfAddress:
    """Raises OptionError, in Docker's words where Docker has them."""
    if not text:
        raise OptionError("gelf-address is a required parameter")
    if not text.startswith(_TRANSPORTS + _OURS):
        raise OptionError(f"gelf-address should be in form proto://address, got {text}")
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise OptionError(f"parse {go_quote(text)}: {error}") from None
    if url.scheme in ("unix", "unixgram"):
        raise OptionError("gelf: endpoint needs to be TCP or UDP")
    if re.search(r"[\s<>\"]", url.netloc):
        raise OptionError(f"parse {go_quote(text)}: invalid character in host name")
    if url.scheme in _DEFAULT_PORTS:
        return _posted(text, url, port)
    if port is None:
        raise OptionError("gelf: please provide gelf-address as proto://host:port")
    return GelfAddress(_SCHEMES.get(url.scheme, url.scheme), url.hostname or "", port)


def _posted(text: str, url: SplitResult, port: int | None) -> GelfAddress:
    if not url.hostname:
        raise OptionError(
            f"gelf: please provide gelf-address as {url.scheme}://host[:port][/path], got {text}"
        )
    if "@" in url.netloc:
        raise OptionError(
            "gelf: please provide user and password as gelf-http-username and gelf-http-password"
        )
    target = _DEFAULT_TARGET if url.path in ("", "/") and not url.query else url.path or "/"
    if url.query:
        target += f"?{url.query}"
    if not re.fullmatch(r"[!-~]+", target):
        raise OptionError(f"parse {go_quote(text)}: invalid character in path")
    return GelfAddress(url.scheme, url.hostname, _DEFAULT_PORTS[url.scheme] if port is None else port, target)
