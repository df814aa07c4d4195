"""``taffrail demo``: containers that write through json-file, gelf and fluentd, so that there is something to see."""

from __future__ import annotations

import argparse

from taffrail.config import Config

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--remove`` takes the containers away again."""
    parser.add_argument(
        "--remove", action="store_true", help="stop and remove the demonstration's containers"
    )


def run(args: argparse.Namespace, config: Config) -> int:
    """Start or remove the demonstration on a running engine. Raises CommandError where none answers."""
    from taffrail.demo import remove_demo, start_demo
    from taffrail.errors import CommandError
    from taffrail.logs import setup_logging
    from taffrail.wiring import make_paths

    setup_logging(config.log)
    try:
        (remove_demo if args.remove else start_demo)(config)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        socket = make_paths(config).engine_socket
        raise CommandError(f"no engine answers at {socket}: start one with 'taffrail up'") from error
    return 0
