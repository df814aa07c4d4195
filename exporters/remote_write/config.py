"""Where series are sent and how, parsed once and checked.

The composition root fills it from the product's configuration; the files of secrets it names are read when
a request is made, so that a changed secret needs no restart.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["RemoteWriteConfig"]

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_OURS = ("content-encoding", "content-type", "x-prometheus-remote-write-version", "authorization", "host")


@dataclass(frozen=True, slots=True)
class RemoteWriteConfig:
    """Options of the exporter. Raises ValueError naming the option and what was expected."""

    url: str
    directory: Path  #: where requests wait
    interval_seconds: float = 15.0
    username: str = ""
    password_file: str = ""
    bearer_token_file: str = ""
    ca_certs: str = ""  #: file with the certificate authorities; "" = the system's
    client_cert: str = ""
    client_key: str = ""
    verify_certs: bool = True
    external_labels: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    queue_bytes: int = 256 << 20
    timeout_seconds: float = 30.0
    backoff_seconds: float = 0.5  #: first pause after a failure; doubles
    longest_backoff_seconds: float = 30.0
    longest_retry_after_seconds: float = 300.0  #: what a server may ask for at most

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url: expected http://host:port/path or https://…, got {self.url!r}")
        if parts.username or parts.password:
            raise ValueError(
                "url: expected no user and password in it: username and password_file are for them"
            )
        if self.bearer_token_file and (self.username or self.password_file):
            raise ValueError("expected username and password_file, or bearer_token_file; got both")
        if bool(self.username) != bool(self.password_file):
            raise ValueError("expected username and password_file together, got one of them")
        if self.client_key and not self.client_cert:
            raise ValueError("client_key needs client_cert")
        for option in ("interval_seconds", "queue_bytes", "timeout_seconds"):
            if getattr(self, option) <= 0:
                raise ValueError(f"{option}: expected more than 0, got {getattr(self, option)}")
        for name in self.external_labels:
            if not _LABEL.fullmatch(name) or name.startswith("__"):
                raise ValueError(f"external_labels: {name!r} is not a label name like datacenter")
        for name, value in self.headers.items():
            if not _HEADER.fullmatch(name) or "\n" in value or "\r" in value:
                raise ValueError(f"headers: {name!r}: expected an HTTP header's name and one line of text")
            if name.lower() in _OURS:
                raise ValueError(f"headers: {name!r} is set by the protocol or the options for credentials")

    def tls(self) -> ssl.SSLContext | None:
        """The client's context; None for http. Raises ValueError naming a file that cannot be used."""
        if urlsplit(self.url).scheme != "https":
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_certs or None)
        except OSError as error:
            raise ValueError(f"ca_certs {self.ca_certs}: {error}") from error
        if not self.verify_certs:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.client_cert:
            try:
                context.load_cert_chain(self.client_cert, self.client_key or None)
            except OSError as error:
                raise ValueError(f"client_cert {self.client_cert}: {error}") from error
        return context
