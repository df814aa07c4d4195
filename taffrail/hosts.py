"""The agents a command asks: this host's over its unix socket, others' by the names given to them.

``[client]`` of the configuration or ``--host NAME=URL`` says which; asking is ``agent_client.py``'s.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from taffrail.agent_client import AgentClient
from taffrail.config import Config
from taffrail.errors import CommandError
from taffrail.tokens import read_tokens
from taffrail.wiring import make_paths

__all__ = ["Host", "hosts_of"]

_UNIX = "unix:"


@dataclass(frozen=True, slots=True)
class Host:
    """An agent to ask."""

    name: str  #: "" for this host's alone: its own name is in its answers
    address: str  #: as a person would want it in an error
    client: AgentClient


def hosts_of(config: Config, given: Sequence[str] = (), timeout: float | None = 30.0) -> tuple[Host, ...]:
    """The agents of ``--host`` (each ``NAME=URL``), or of ``client.hosts``, or this host's alone.

    Raises CommandError naming what cannot be used.
    """
    named = _named(given) if given else config.client.hosts
    if not named:
        socket = make_paths(config).agent_socket
        return (Host("", str(socket), AgentClient(socket, timeout)),)
    token = ""
    if config.client.token_file:
        token = read_tokens(config.client.token_file, "[client] token_file")[0]
    tls = _tls(config) if any(url.startswith("https:") for url in named.values()) else None
    return tuple(_host(config, name, url, timeout, token, tls) for name, url in named.items())


def _named(given: Sequence[str]) -> Mapping[str, str]:
    named: dict[str, str] = {}
    for text in given:
        name, equals, url = text.partition("=")
        if not equals or not name or not url:
            raise CommandError(f"--host {text!r}: expected NAME=http://HOST:PORT")
        if name in named:
            raise CommandError(f"--host {text!r}: {name!r} is there already")
        named[name] = url
    return named


def _host(
    config: Config, name: str, url: str, timeout: float | None, token: str, tls: ssl.SSLContext | None
) -> Host:
    if url.startswith(_UNIX):
        path = url[len(_UNIX) :]
        while path.startswith("//"):
            path = path[1:]
        socket = Path(path) if path.strip("/") else make_paths(config).agent_socket
        return Host(name, str(socket), AgentClient(socket, timeout))
    try:
        return Host(name, url, AgentClient.at(url, timeout, token, tls))
    except CommandError as error:
        raise CommandError(f"host {name}: {error}") from None


def _tls(config: Config) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=config.client.ca_certs or None)
    except OSError as error:
        raise CommandError(f"[client] ca_certs {config.client.ca_certs}: {error}") from error
