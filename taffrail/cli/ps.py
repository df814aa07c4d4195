"""``taffrail ps``: the containers of all engines on this host in one table, or the processes of one."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, cast

from taffrail.config import Config

if TYPE_CHECKING:
    from taffrail.agent_client import AgentClient
    from taffrail.ps_table import Row

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A container, ``--all``, filters, JSON."""
    parser.add_argument(
        "container", nargs="?", default="", help="show the processes of this container; / shows the host's"
    )
    parser.add_argument("-a", "--all", action="store_true", help="also those that do not run")
    parser.add_argument(
        "-f",
        "--filter",
        default="",
        metavar="EXPR",
        help="only rows it is true for: 'engine:docker and cpu > 2', 'state:exited'; in a container 'cpu > 2'",
    )
    parser.add_argument(
        "--at",
        default="",
        metavar="TIME",
        help="as it was then: the busiest processes of the container, else containers; "
        "03:00, 2h (ago), 2026-01-31T12:00:00Z, Unix seconds",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="only the ids")
    parser.add_argument("--json", action="store_true", help="JSON, one object a line")


def run(args: argparse.Namespace, config: Config) -> int:
    """Print once."""
    from taffrail.agent_client import AgentClient
    from taffrail.errors import CommandError, UsageError
    from taffrail.ps_table import container_table, json_lines, process_table
    from taffrail.stats_filter import FilterError
    from taffrail.top.filtering import row_test
    from taffrail.units import parse_moment
    from taffrail.wiring import make_paths

    try:
        kind = "processes" if args.container else "containers"
        test = row_test(kind, args.filter) if args.filter else lambda row: True
    except FilterError as error:
        raise UsageError(f"--filter {args.filter!r}: {error}") from error
    try:
        moment_ns = parse_moment(args.at, time.time_ns()) if args.at else None
    except ValueError as error:
        raise UsageError(f"--at: {error}") from error
    socket = make_paths(config).agent_socket
    client = AgentClient(socket)
    try:
        rows = _now(client, args) if moment_ns is None else _past(client, args.container, moment_ns)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise CommandError(f"no agent answers on {socket}: start one with 'taffrail up' ({error})") from error
    rows = [row for row in rows if test(row)]
    if args.json:
        sys.stdout.write(json_lines(rows))
    elif args.quiet:
        sys.stdout.write(
            "".join(f"{row['pid'] if args.container else str(row['id'])[:12]}\n" for row in rows)
        )
    else:
        sys.stdout.write(process_table(rows) if args.container else container_table(rows))
    return 0


def _now(client: AgentClient, args: argparse.Namespace) -> list[Row]:
    """The processes of one container, or the containers."""
    from taffrail.ps_table import container_rows

    if args.container:
        answer = cast("dict[str, list[Row]]", client.json("/api/v1/processes", {"container": args.container}))
        return list(answer["processes"])
    containers = cast("list[Row]", client.json("/api/v1/containers"))
    stats = cast("dict[str, list[Row]]", client.json("/api/v1/stats"))["containers"]
    return list(container_rows(containers, stats, every=args.all, now_ns=time.time_ns()))


def _past(client: AgentClient, container: str, moment_ns: int) -> list[Row]:
    """What the agent recorded of a moment: one container's busiest processes, or all containers."""
    from taffrail.errors import CommandError

    query = {"time": str(moment_ns)}
    if container:
        answer = cast(
            "dict[str, list[Row]]", client.json("/api/v1/history/processes", query | {"container": container})
        )
        return sorted(answer["processes"], key=lambda row: -float(str(row["cpu_percent"] or 0)))
    past = cast("dict[str, list[Row]]", client.json("/api/v1/history/at", query))
    if not past["containers"]:  # not even the host
        raise CommandError("nothing is known of that time: the agent did not run, or it is too long ago")
    return [{**row, "status": "Running then"} for row in past["containers"] if row["id"] != "/"]
