"""``taffrail top``: containers, processes, threads, files and connections on the whole terminal."""

from __future__ import annotations

import argparse
import sys

from taffrail.cli.host_argument import add_host_argument
from taffrail.config import Config

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How often, which hosts, and whether in colours."""
    parser.add_argument(
        "-d", "--delay", type=float, default=1.0, metavar="SECONDS", help="time between two looks (1)"
    )
    add_host_argument(parser)
    parser.add_argument("--no-color", action="store_true", help="without colours; NO_COLOR=1 does the same")


def run(args: argparse.Namespace, config: Config) -> int:
    """Show until q."""
    from taffrail.errors import CommandError, UsageError
    from taffrail.hosts import hosts_of
    from taffrail.top.app import run_top

    if not 0.1 <= args.delay <= 3600:
        raise UsageError(f"--delay {args.delay}: expected 0.1 to 3600 seconds")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CommandError("needs a terminal; 'taffrail ps' and 'taffrail stats --no-stream' print to a file")
    hosts = hosts_of(config, args.host, timeout=15.0)
    if not hosts[0].name:  # of several, one that is down is a line among the others
        try:
            hosts[0].client.json("/api/v1/health")
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise CommandError(
                f"no agent answers on {hosts[0].address}: start one with 'taffrail up' ({error})"
            ) from error
    clients = {host.name: host.client for host in hosts}
    return run_top(clients, interval=args.delay, colours=False if args.no_color else None)
