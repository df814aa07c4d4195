"""How to reach an Elasticsearch (or OpenSearch) and what to send it, parsed once and checked.

The composition root fills it from the product's configuration; nothing here reads files or environment.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

__all__ = ["ElasticsearchConfig"]


@dataclass(frozen=True, slots=True)
class ElasticsearchConfig:
    """Options of the exporter. Raises ValueError naming the option and what was expected."""

    hosts: tuple[str, ...]  #: ``http://host:port`` or ``https://…``, a path prefix allowed
    state_directory: Path  #: where dead letters are kept
    data_stream: str = "logs-taffrail-default"  #: ``type-dataset-namespace``, or the name of an index
    username: str = ""
    password: str = ""
    api_key: str = ""  #: the encoded form, as Kibana shows it
    bearer_token: str = ""
    ca_certs: str = ""  #: file with the certificate authorities; "" = the system's
    client_cert: str = ""
    client_key: str = ""
    verify_certs: bool = True
    compression: Literal["auto", "gzip", "none"] = "auto"  #: auto: gzip unless every host is loopback
    batch_bytes: int = 1 << 20  #: stored bytes taken from the cursor at once
    request_bytes: int = 6 << 20  #: most bytes of one bulk request before compression
    request_timeout_seconds: float = 60.0
    backoff_seconds: float = 0.5  #: first pause after a failure; doubles
    longest_backoff_seconds: float = 30.0
    install_template: bool = True
    dead_letter_bytes: int = 64 << 20  #: most bytes of rejected documents kept on disk

    def __post_init__(self) -> None:
        if not self.hosts:
            raise ValueError("hosts: expected at least one URL of an Elasticsearch, got none")
        for host in self.hosts:
            parts = urlsplit(host)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"hosts: expected http://host:port or https://host:port, got {host!r}")
        if sum(map(bool, (self.username, self.api_key, self.bearer_token))) > 1:
            raise ValueError("expected one of username and password, api_key, bearer_token; got several")
        name = self.data_stream
        if not name or name != name.lower() or set(name) & set(' "\\/*?<>|,#:') or name[0] in "-_+.":
            raise ValueError(f"data_stream: expected a lower-case name like logs-app-default, got {name!r}")
        if self.compression not in ("auto", "gzip", "none"):
            raise ValueError(f"compression: expected auto, gzip or none, got {self.compression!r}")
        for option in ("batch_bytes", "request_bytes", "request_timeout_seconds", "backoff_seconds"):
            if getattr(self, option) <= 0:
                raise ValueError(f"{option}: expected more than 0, got {getattr(self, option)}")

    @property
    def gzip(self) -> bool:
        """Whether request bodies are compressed."""
        if self.compression == "auto":
            return not all(_loopback(urlsplit(host).hostname or "") for host in self.hosts)
        return self.compression == "gzip"

    @property
    def data_stream_parts(self) -> tuple[str, str, str] | None:
        """Type, dataset and namespace of the data stream, or None when it is the name of an index."""
        parts = self.data_stream.split("-", 2)
        return (parts[0], parts[1], parts[2]) if len(parts) == 3 and all(parts) else None


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
