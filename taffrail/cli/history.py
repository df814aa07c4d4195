"""``taffrail history``: what a container used, up to seven days back, removed ones too."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from taffrail.config import Config

__all__ = ["add_arguments", "run"]

_ROWS = 24  # of the table, about
_CELLS = 60  # of a sparkline, about
_MOST_PROCESSES = 1000  # that the agent tells at once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The container, the time range, the step and the form."""
    parser.add_argument(
        "container",
        nargs="?",
        default="",
        metavar="NAME",
        help="name or id, also of a removed container; / is the host; without it, lists who has history",
    )
    parser.add_argument(
        "--since",
        default="",
        metavar="TIME",
        help="from when: 2h, 7d, 03:00, 2026-01-31T12:00:00Z, Unix seconds (10m; 7d for who has history)",
    )
    parser.add_argument("--until", default="", metavar="TIME", help="to when (now)")
    parser.add_argument(
        "-p",
        "--processes",
        action="store_true",
        help="the processes that used most, of the container or (without NAME) of all and the host",
    )
    parser.add_argument(
        "-c",
        "--connections",
        action="store_true",
        help="who talked to whom: the services used, by the container or (without NAME) by all",
    )
    parser.add_argument(
        "--step", default="", metavar="DURATION", help="time between rows: 10s, 5m (about 24 rows)"
    )
    parser.add_argument(
        "-n",
        "--limit",
        type=int,
        default=_ROWS,
        metavar="N",
        help=f"at most N processes or connections, 0 for all ({_ROWS}; JSON has all)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="the answer as JSON: columns of at most 720 steps unless --step is given",
    )


def run(args: argparse.Namespace, config: Config) -> int:
    """Print the table. Exit status 1 if nothing is known."""
    import time

    from taffrail.errors import CommandError, UsageError
    from taffrail.units import parse_duration, parse_moment
    from taffrail.wiring import make_paths

    now_ns = time.time_ns()
    since = args.since or ("10m" if args.container or args.processes or args.connections else "7d")
    try:
        until_ns = parse_moment(args.until, now_ns) if args.until else now_ns
        since_ns = parse_moment(since, now_ns)
        step = parse_duration(args.step) if args.step else 0.0
    except ValueError as error:
        raise UsageError(str(error)) from error
    if since_ns >= until_ns:
        raise UsageError(f"--since {since}: expected a time before {args.until or 'now'}")
    if args.processes and args.connections:
        raise UsageError("--processes and --connections: expected one of them")
    if args.step and (step < 1 or step != int(step)):
        raise UsageError(f"--step {args.step}: expected whole seconds, 1 or more")
    if args.limit < 0:
        raise UsageError(f"--limit {args.limit}: expected a number, 0 for all")
    query = {"from": str(since_ns), "to": str(until_ns)}
    socket = make_paths(config).agent_socket
    try:
        if args.processes or args.connections:
            kind = "processes" if args.processes else "connections"
            return _inside(socket, kind, query | _container(args.container), args.limit, args.json)
        if not args.container:
            return _list(socket, query, args.json)
        query["container"] = args.container
        return _show(socket, query, int(step), (until_ns - since_ns) / 1e9, args.json)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise CommandError(f"no agent answers on {socket}: start one with 'taffrail up' ({error})") from error


def _container(name: str) -> dict[str, str]:
    return {"container": name} if name else {}


def _inside(socket: Path, kind: str, query: dict[str, str], limit: int, as_json: bool) -> int:
    """Processes or connections over the range."""
    import orjson

    from taffrail.agent_client import AgentClient
    from taffrail.past_table import connections_table, processes_table

    path = "busiest" if kind == "processes" else "connections"
    if kind == "processes":
        query = query | {"limit": str(_MOST_PROCESSES)}
    body = AgentClient(socket).get(f"/api/v1/history/{path}", query)
    answer = orjson.loads(body)
    found = answer["processes" if kind == "processes" else "edges"]
    if as_json:
        sys.stdout.write(body.decode() + "\n")
    elif kind == "processes":
        several = "container" not in query
        sys.stdout.write(processes_table(found, limit, answer["left_out"], several=several))
    else:
        sys.stdout.write(connections_table(answer["nodes"], found, limit, answer["left_out"]))
    return 0 if found else 1


def _list(socket: Path, query: dict[str, str], as_json: bool) -> int:
    import orjson

    from taffrail.agent_client import AgentClient
    from taffrail.history_table import containers_table

    answer = AgentClient(socket).get("/api/v1/history/containers", query)
    rows = orjson.loads(answer)
    sys.stdout.write(answer.decode() + "\n" if as_json else containers_table(rows))
    return 0 if rows else 1


def _show(socket: Path, query: dict[str, str], step: int, seconds: float, as_json: bool) -> int:
    import orjson

    from taffrail.agent_client import AgentClient
    from taffrail.history_table import history_table
    from taffrail.units import duration_text

    client = AgentClient(socket)

    def ask(step: int) -> tuple[bytes, Any]:
        body = client.get("/api/v1/history", query | ({"step": str(step)} if step else {}))
        return body, orjson.loads(body)

    if as_json:
        body, answer = ask(step)
        sys.stdout.write(body.decode() + "\n")
    else:
        _, answer = ask(step or _round(seconds / _ROWS))
        _, overview = ask(_round(seconds / _CELLS))
        title = f"{answer['name']}   {answer['id'][:12]}   {answer['image']}   a row is {duration_text(answer['step'])}"
        averages = overview["averages"]
        sys.stdout.write(
            history_table(title, answer["times"], answer["columns"], overview["columns"], averages)
        )
    return 0 if any(value is not None for value in answer["columns"]["memory_bytes"]) else 1


def _round(seconds: float) -> int:
    """A duration people count in, not shorter."""
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200)
    return next((step for step in steps if step >= seconds), 86400)
