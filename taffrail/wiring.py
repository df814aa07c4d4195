"""Small facts the commands share about a running Taffrail: its roots, and where it listens.

While it runs the agent has the addresses it really bound in ``<run>/agent.json``, so a port 0 in the
configuration and a port taken by something else are both seen by everyone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from taffrail.config import Config
from taffrail.errors import CommandError
from taffrail.paths import Paths

__all__ = [
    "Endpoints",
    "describe",
    "make_paths",
    "read_endpoints",
    "split_address",
    "withdraw_endpoints",
    "write_endpoints",
]


@dataclass(frozen=True, slots=True)
class Endpoints:
    """``host:port`` of what the agent listens on; empty where it is switched off."""

    http: str = ""
    gelf: str = ""
    gelf_http: str = ""
    forward: str = ""


def make_paths(config: Config) -> Paths:
    """The roots the configuration names."""
    return Paths(run=config.paths.run, state=config.paths.state, proc=config.paths.proc, sys=config.paths.sys)


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``127.0.0.1:9480`` or ``[::1]:9480``.

    Raises CommandError naming the address.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise CommandError(f"address {address!r}: expected HOST:PORT, like 127.0.0.1:9480")
    return host.strip("[]"), int(port)


def _file(paths: Paths) -> Path:
    return paths.run / "agent.json"


def write_endpoints(paths: Paths, endpoints: Endpoints) -> None:
    """Say where the agent listens; replaced as a whole, never seen half written."""
    fresh = _file(paths).with_suffix(".new")
    fresh.write_bytes(orjson.dumps(asdict(endpoints)))
    fresh.replace(_file(paths))


def withdraw_endpoints(paths: Paths) -> None:
    """The agent stops: what says where it listens goes, and so does its socket."""
    for path in (_file(paths), paths.agent_socket):
        path.unlink(missing_ok=True)


def read_endpoints(paths: Paths) -> Endpoints:
    """Where the agent listens.

    Raises CommandError if no agent has said so.
    """
    try:
        return Endpoints(**orjson.loads(_file(paths).read_bytes()))
    except FileNotFoundError:
        raise CommandError(
            f"no agent runs here: {_file(paths)} does not exist; start one with 'taffrail up'"
        ) from None
    except (TypeError, orjson.JSONDecodeError) as error:
        raise CommandError(f"{_file(paths)} is not what an agent writes: {error}") from error


def describe(config: Config, command: str) -> str:
    """What ``taffrail up`` prints once everything answers; ``command`` is how to call us again."""
    paths = make_paths(config)
    at = read_endpoints(paths)
    scheme = "https" if config.http.tls_cert else "http"
    lines = [
        "Taffrail is up.",
        f"  page      {scheme}://{at.http}/",
        f"  metrics   {scheme}://{at.http}/metrics",
        f"  engine    docker -H unix://{paths.engine_socket} ps",
    ]
    if at.gelf or at.gelf_http:
        secured = bool(config.inputs.gelf_tls_cert)
        urls = [f"udp://{at.gelf}", f"{'tls' if secured else 'tcp'}://{at.gelf}"] if at.gelf else []
        if at.gelf_http:
            urls.append(f"http{'s' if secured else ''}://{at.gelf_http}/gelf")
        lines.append(f"  gelf      {'  '.join(urls)}")
    if at.forward:
        lines.append(f"  forward   tcp://{at.forward}")
    lines.append(f"  try       {command} stats")
    lines.append(f"            {command} search 'level:error' --since 10m")
    return "\n".join(lines)
