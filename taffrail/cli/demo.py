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
    """Start or remove the demonstration on a running engine."""
    from taffrail.demo import remove_demo, start_demo
    from taffrail.logs import setup_logging

    setup_logging(config.log)
    (remove_demo if args.remove else start_demo)(config)
    return 0
