"""``syslog-address``: where messages go, read as Go's URL parser and Docker's driver read it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from logdrivers.driver import OptionError
from logdrivers.options import go_quote

__all__ = ["SyslogAddress", "parse_address"]

_TRANSPORTS = ("udp://", "tcp://", "tcp+tls://", "unix://", "unixgram://")
_DEFAULT_PORT = 514
_STREAMS = frozenset({"tcp", "tcp+tls", "unix"})


@dataclass(frozen=True, slots=True)
class SyslogAddress:
    """``udp``, ``tcp``, ``tcp+tls`` with host and port; ``unix``, ``unixgram`` with a path; ``""`` is this host's."""

    scheme: str = ""
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def stream(self) -> bool:
        """Whether messages follow each other in a stream."""
        return self.scheme in _STREAMS

    def __str__(self) -> str:
        if not self.scheme:
            return "the host's syslog socket"
        if self.path:
            return f"{self.scheme}://{self.path}"
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def parse_address(text: str) -> SyslogAddress:
    """Raises OptionError in Docker's words.

    A Unix socket need not be there: it may come later, and lines wait for it in the journal.
    """
    if not text:
        return SyslogAddress()
    if not text.startswith(_TRANSPORTS):
        raise OptionError(f"syslog-address should be in form proto://address, got {text}")
    scheme, _, rest = text.partition("://")
    host, path = re.fullmatch(r"([^/?#]*)([^?#]*).*", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    if scheme in ("unix", "unixgram"):
        if not path:
            raise OptionError("stat : no such file or directory")
        return SyslogAddress(scheme, path=path)
    return _with_port(scheme, text, host.rpartition("@")[2])


def _with_port(scheme: str, text: str, host: str) -> SyslogAddress:
    if host.startswith("["):
        name, bracket, port = host[1:].rpartition("]")
        if not bracket:
            raise OptionError(f"parse {go_quote(text)}: missing ']' in host")
    else:
        name, colon, number = host.rpartition(":")
        name, port = (name, colon + number) if colon else (number, "")
    if not re.fullmatch(r"(:[0-9]*)?", port):
        raise OptionError(f"parse {go_quote(text)}: invalid port {go_quote(port)} after host")
    if ":" in name and not host.startswith("["):
        raise OptionError(f"address {host}: too many colons in address")
    if re.search(r"[\s<>\"]", name):
        raise OptionError(f"parse {go_quote(text)}: invalid character in host name")
    number = port[1:] or str(_DEFAULT_PORT)
    if int(number) > 65535:
        raise OptionError(f"address {number}: invalid port")
    return SyslogAddress(scheme, name, int(number))
