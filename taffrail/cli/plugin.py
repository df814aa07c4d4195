"""``taffrail plugin``: our log drivers for an unmodified Docker Engine on this host."""

from __future__ import annotations

import argparse
from pathlib import Path

from taffrail.config import Config
from taffrail.errors import CommandError, UsageError
from taffrail.units import parse_size
from taffrail.wiring import make_paths

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The name docker knows the driver by, and where it looks for it."""
    parser.add_argument("--name", default="taffrail", help="docker's --log-driver NAME (taffrail)")
    parser.add_argument(
        "--socket-dir",
        type=Path,
        default=Path("/run/docker/plugins"),
        metavar="DIRECTORY",
        help="where Docker Engine looks for NAME.sock (/run/docker/plugins)",
    )
    parser.add_argument(
        "--docker-socket",
        default="",
        metavar="PATH",
        help="the engine's API socket, which tells of removed containers; 'none' to ask nobody"
        " (/var/run/docker.sock)",
    )
    parser.add_argument(
        "--max-bytes",
        default="4g",
        metavar="SIZE",
        help="for logs of containers that no longer log, all together; the oldest go (4g)",
    )


def run(args: argparse.Namespace, config: Config) -> int:
    """Serve until SIGINT or SIGTERM; what containers write meanwhile waits for the next start."""
    import asyncio

    from taffrail.logs import setup_logging

    if not args.name or "/" in args.name or args.name.startswith("."):
        raise UsageError(f"--name {args.name!r}: expected a name without slashes")
    try:
        max_bytes = parse_size(args.max_bytes)
    except ValueError as error:
        raise UsageError(f"--max-bytes: {error}") from error
    setup_logging(config.log)
    asyncio.run(_serve(args.name, args.socket_dir, args.docker_socket, max_bytes, config))
    return 0


async def _serve(
    name: str, socket_directory: Path, engine_socket: str, max_bytes: int, config: Config
) -> None:
    import asyncio
    import signal

    from logdrivers.plugin.engine import DEFAULT_SOCKET, EngineWatch
    from logdrivers.plugin.server import PluginServer
    from logdrivers.plugin.service import InUse, PluginService

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    paths = make_paths(config)
    service = PluginService(paths.state / "plugin" / name, paths.run / "plugin" / name, max_bytes)
    watch = EngineWatch(Path(engine_socket or DEFAULT_SOCKET), service) if engine_socket != "none" else None
    server = PluginServer(service, socket_directory / f"{name}.sock", watch)
    try:
        await server.start()
    except (InUse, OSError) as error:
        raise CommandError(f"serve {socket_directory / name}.sock: {error}") from error
    print(f"docker run --log-driver {name} --log-opt sink=gelf --log-opt gelf-address=… …", flush=True)
    _notify_ready()
    try:
        await stop.wait()
    finally:
        await server.stop()


def _notify_ready() -> None:
    """Tell systemd, if it has started us as ``Type=notify`` (sd_notify(3))."""
    import os
    import socket

    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"READY=1", address.replace("@", "\0", 1) if address.startswith("@") else address)
