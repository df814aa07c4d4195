"""``taffrail stats``: what every container of one or several hosts uses, with docker stats' columns."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from taffrail.cli.host_argument import add_host_argument
from taffrail.config import Config

if TYPE_CHECKING:
    from taffrail.stats_feed import Frame
    from taffrail.stats_view import View

__all__ = ["add_arguments", "run"]

_TIMEOUT_SECONDS = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Docker stats' options: names, ``--all``, ``--no-stream``, ``--format``; and choosing, sorting, hosts."""
    parser.add_argument(
        "containers", nargs="*", metavar="CONTAINER", help="names or ids; all that run if none is given"
    )
    parser.add_argument("-a", "--all", action="store_true", help="also those that do not run")
    parser.add_argument("--no-stream", action="store_true", help="print once instead of every second")
    parser.add_argument(
        "-s",
        "--sort",
        default="name",
        metavar="FIELD",
        help="cpu, memory, mem%%, net, rx, tx, block, read, write, pids: largest first; name, host, image …: "
        "a to z; --sort=-FIELD turns it round",
    )
    parser.add_argument("-r", "--reverse", action="store_true", help="the other way round")
    parser.add_argument(
        "-f", "--filter", default="", metavar="EXPR", help="only rows it is true for: 'cpu > 2 and name:web*'"
    )
    parser.add_argument("-n", "--limit", type=int, default=0, metavar="N", help="at most N rows")
    add_host_argument(parser)
    parser.add_argument(
        "--format",
        choices=("table", "json", "csv"),
        default="table",
        help="table (default), JSON or CSV, a line for each container and second",
    )
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="--format json")
    parser.add_argument("--csv", dest="format", action="store_const", const="csv", help="--format csv")


def run(args: argparse.Namespace, config: Config) -> int:
    """Print until Ctrl-C, or once. 1 if an agent did not answer or nobody has a container named."""
    from taffrail.config_load import ConfigError
    from taffrail.errors import CommandError
    from taffrail.hosts import hosts_of
    from taffrail.stats_feed import frames, one_frame
    from taffrail.stats_view import make_view

    try:
        hosts = hosts_of(config, args.host, _TIMEOUT_SECONDS)
        several = bool(hosts[0].name)
        # One agent looks containers up by itself, of several most have never heard of any one container.
        names = args.containers if several else ()
        view = make_view(names, args.filter, args.sort, args.reverse, args.limit)
    except CommandError as error:  # what was typed or configured cannot be read
        raise ConfigError(f"stats: {error}") from error
    query = {"all": "1"} if args.all or args.containers else {}
    if args.containers and not several:
        query["containers"] = ",".join(args.containers)
    if args.format == "json" or "label." in f"{args.filter} {args.sort}":
        query["labels"] = "1"
    found = [one_frame(hosts, query)] if args.no_stream else frames(hosts, query)
    failed = _show(found, view, args.format, several)
    if failed and not several:
        raise CommandError(failed)
    return 1 if failed and args.no_stream else 0


def _show(found: Iterable[Frame], view: View, form: str, several: bool) -> str:
    """Print frames; what went wrong in the last of them. Ends at once if the only agent does not answer."""
    from taffrail.live_screen import LiveScreen
    from taffrail.stats_table import csv_lines, json_lines, table_lines
    from taffrail.terminal import visible

    first, told, errors = True, [""], [""]
    live = form == "table" and sys.stdout.isatty() and not isinstance(found, list)
    with contextlib.ExitStack() as stack:
        screen: LiveScreen | None = None
        for frame in found:
            if first and not several and frame.errors:
                return next(iter(frame.errors.values()))
            rows = view.of(frame.rows)
            errors = _errors(view, frame)
            if live:
                screen = screen or stack.enter_context(LiveScreen())
                screen.draw(table_lines(rows, several), [visible(error) for error in errors])
            elif form == "table":
                print("\n".join(table_lines(rows, several)), flush=True)
            else:
                print(json_lines(rows) if form == "json" else csv_lines(rows, first), end="", flush=True)
            if not live and errors != told:
                told = errors
                print(
                    "".join(f"taffrail stats: {visible(error)}\n" for error in errors),
                    end="",
                    file=sys.stderr,
                )
            first = False
    return errors[0] if errors else ""


def _errors(view: View, frame: Frame) -> list[str]:
    """A line for each agent that does not answer and each name that nobody has."""
    hosts: Mapping[str, str] = frame.errors
    lines = [f"{name}: {error}" if name else error for name, error in hosts.items()]
    return lines + [f"No such container: {name}" for name in view.missing(frame.rows)]
