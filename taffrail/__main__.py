"""The ``taffrail`` command: reads the arguments and the configuration, hands over to one file of ``taffrail/cli``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from taffrail import __version__
from taffrail.config_load import ConfigError, load
from taffrail.errors import CommandError, UsageError

__all__ = ["COMMANDS", "main", "make_parser"]

#: Every command: its module in ``taffrail/cli`` and the line ``--help`` shows. Those modules import what is heavy
#: inside ``run``, so that ``taffrail stats`` does not pay for the engine.
COMMANDS: dict[str, str] = {
    "up": "start the engine and the collector, and stay in front of them",
    "down": "stop the containers that go on running after up, and remove bridges and rules",
    "engine": "run the engine alone (what the systemd unit starts)",
    "agent": "run the collector alone (what the systemd unit starts)",
    "plugin": "serve our log drivers to a Docker Engine on this host",
    "demo": "run containers that write through json-file, gelf and fluentd",
    "stats": "show what containers use, live",
    "history": "show what a container used, up to seven days back",
    "top": "containers, processes, threads, files and connections, full screen",
    "ps": "list the containers of all engines, or the processes of one",
    "search": "find log lines",
    "dashboards": "write or push the Grafana dashboards and alert rules",
    "config": "show the configuration in force",
}


def make_parser(words: Collection[str] | None = None) -> argparse.ArgumentParser:
    """The parser of the whole command line; with ``words``, of the commands among them in full.

    What the others need is not imported then, which an agent would keep in memory as long as it runs.
    """
    parser = argparse.ArgumentParser(
        prog="taffrail", description="Containers, their logs and their counters on one host."
    )
    parser.add_argument("--version", action="version", version=f"taffrail {__version__}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration file (TOML)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        dest="settings",
        help="set one configuration value; may be given many times",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if words is None or name in words:
            importlib.import_module(f"taffrail.cli.{name}").add_arguments(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0 done, 1 failed, 2 wrong usage or configuration."""
    args = make_parser(sys.argv[1:] if argv is None else argv).parse_args(argv)
    command = importlib.import_module(f"taffrail.cli.{args.command}")
    try:
        return int(command.run(args, load(args.config, settings=args.settings)))
    except ConfigError as error:
        print(f"taffrail: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    except UsageError as error:
        print(f"taffrail {args.command}: {error}", file=sys.stderr)
        return 2
    except (CommandError, ConnectionError) as error:
        print(f"taffrail {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
