"""``taffrail top``: containers, processes, threads, files and connections on the whole terminal."""

from __future__ import annotations

import argparse
import sys

from taffrail.config import Config

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How often, and whether in colours."""
    parser.add_argument(
        "-d", "--delay", type=float, default=1.0, metavar="SECONDS", help="time between two looks (1)"
    )
    parser.add_argument("--no-color", action="store_true", help="without colours; NO_COLOR=1 does the same")


def run(args: argparse.Namespace, config: Config) -> int:
    """Show until q."""
    from taffrail.agent_client import AgentClient
    from taffrail.errors import CommandError
    from taffrail.top.app import run_top
    from taffrail.wiring import make_paths

    if not 0.1 <= args.delay <= 3600:
        raise CommandError(f"--delay {args.delay}: expected 0.1 to 3600 seconds")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CommandError("needs a terminal; 'taffrail ps' and 'taffrail stats --no-stream' print to a file")
    socket = make_paths(config).agent_socket
    client = AgentClient(socket, timeout=15.0)
    try:
        client.json("/api/v1/health")
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise CommandError(f"no agent answers on {socket}: start one with 'taffrail up' ({error})") from error
    return run_top(client, interval=args.delay, colours=False if args.no_color else None)
