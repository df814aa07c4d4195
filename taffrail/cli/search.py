"""``taffrail search``: log lines by the query language, from this host's store."""

from __future__ import annotations

import argparse
import sys

import orjson

from taffrail.config import Config

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The query, the time range, how many and in which form."""
    parser.add_argument(
        "query", nargs="*", help="""what to look for, like: container:web* level:error "timed out" -healthz"""
    )
    parser.add_argument(
        "--since",
        default="1h",
        metavar="TIME",
        help="from when: 10m, 2026-01-31T12:00:00Z, Unix seconds (1h)",
    )
    parser.add_argument("--until", default="", metavar="TIME", help="to when (now)")
    parser.add_argument(
        "-n", "--limit", type=int, default=1000, help="at most so many lines, the newest (1000)"
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="text (default) or JSON, one a line"
    )


def run(args: argparse.Namespace, config: Config) -> int:
    """Print the lines in the order of time. Exit status 1 if there is none, as grep."""
    from taffrail.agent_client import AgentClient
    from taffrail.errors import CommandError, UsageError
    from taffrail.terminal import line_of_hit
    from taffrail.units import parse_time
    from taffrail.wiring import make_paths

    if args.limit < 1:
        raise UsageError(f"--limit {args.limit}: expected a number, 1 or more")
    query = {"query": _join(args.query), "limit": str(args.limit)}
    try:
        query["since"] = str(parse_time(args.since))
        if args.until:
            query["until"] = str(parse_time(args.until))
    except ValueError as error:
        raise UsageError(str(error)) from error
    socket = make_paths(config).agent_socket
    try:
        hits = list(AgentClient(socket, timeout=120.0).lines("/api/v1/search", query))
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise CommandError(f"no agent answers on {socket}: start one with 'taffrail up' ({error})") from error
    found = 0
    for line in reversed(hits):  # newest first on the wire, so that a limit keeps the newest
        hit = orjson.loads(line)
        if "error" in hit:
            raise CommandError(hit["error"])
        found += 1
        sys.stdout.write(
            line.decode() if args.format == "json" else line_of_hit(hit, color=sys.stdout.isatty())
        )
    return 0 if found else 1


def _join(words: list[str]) -> str:
    """One query from the words of the command line; a word with a space was quoted in the shell: one phrase."""
    if len(words) == 1:
        return words[0]
    return " ".join(
        f'"{word}"' if " " in word and '"' not in word and ":" not in word else word for word in words
    )
