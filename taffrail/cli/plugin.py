"""``taffrail plugin``: our log drivers for an unmodified Docker Engine on this host."""

from __future__ import annotations

import argparse
from pathlib import Path

from taffrail.config import Config
from taffrail.errors import CommandError
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


def run(args: argparse.Namespace, config: Config) -> int:
    """Serve until SIGINT or SIGTERM; what containers write meanwhile waits for the next start."""
    import asyncio

    from taffrail.logs import setup_logging

    if not args.name or "/" in args.name or args.name.startswith("."):
        raise CommandError(f"--name {args.name!r}: expected a name without slashes")
    setup_logging(config.log)
    asyncio.run(_serve(args.name, args.socket_dir, config))
    return 0


async def _serve(name: str, socket_directory: Path, config: Config) -> None:
    import asyncio
    import signal

    from logdrivers.plugin.server import PluginServer
    from logdrivers.plugin.service import InUse, PluginService

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    paths = make_paths(config)
    service = PluginService(paths.state / "plugin" / name, paths.run / "plugin" / name)
    server = PluginServer(service, socket_directory / f"{name}.sock")
    try:
        await server.start()
    except (InUse, OSError) as error:
        raise CommandError(f"serve {socket_directory / name}.sock: {error}") from error
    print(f"docker run --log-driver {name} --log-opt sink=gelf --log-opt gelf-address=… …", flush=True)
    try:
        await stop.wait()
    finally:
        await server.stop()
