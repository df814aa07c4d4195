"""``taffrail stats``: what every container uses, names first, with docker stats' columns."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import orjson

from taffrail.config import Config

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Docker stats' options: names, ``--all``, ``--no-stream``, ``--format``."""
    parser.add_argument(
        "containers", nargs="*", metavar="CONTAINER", help="names or ids; all that run if none is given"
    )
    parser.add_argument("-a", "--all", action="store_true", help="also those that do not run")
    parser.add_argument("--no-stream", action="store_true", help="print once instead of every second")
    parser.add_argument(
        "--format", choices=("table", "json"), default="table", help="table (default) or JSON, one a line"
    )


def run(args: argparse.Namespace, config: Config) -> int:
    """Print until Ctrl-C, or once."""
    from taffrail.agent_client import AgentClient
    from taffrail.errors import CommandError
    from taffrail.stats_table import json_lines, live_frame, table
    from taffrail.wiring import make_paths

    socket = make_paths(config).agent_socket
    query = {"all": "1"} if args.all else {}
    if args.containers:
        query["containers"] = ",".join(args.containers)
    if not args.no_stream:
        query["stream"] = "1"
    live = not args.no_stream and args.format == "table" and sys.stdout.isatty()
    try:
        for line in AgentClient(socket, timeout=None).lines("/api/v1/stats", query):
            rows: Sequence[dict[str, object]] = orjson.loads(line)["containers"]
            render = json_lines if args.format == "json" else live_frame if live else table
            print(render(rows), end="", flush=True)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise CommandError(f"no agent answers on {socket}: start one with 'taffrail up' ({error})") from error
    return 0
