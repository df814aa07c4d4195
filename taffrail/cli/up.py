"""``taffrail up``: the engine and the collector with its store, the page and /metrics, in one command."""

from __future__ import annotations

import argparse

from taffrail.config import Config

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--demo`` starts the demonstration containers once everything answers."""
    parser.add_argument("--demo", action="store_true", help="also start the demonstration containers")


def run(args: argparse.Namespace, config: Config) -> int:
    """Run until Ctrl-C; containers go on running after it."""
    import logging

    from taffrail.demo import start_demo
    from taffrail.errors import CommandError
    from taffrail.invocation import given_options, typed
    from taffrail.logs import setup_logging
    from taffrail.up import Supervisor
    from taffrail.wiring import describe

    setup_logging(config.log)
    passed = given_options(args.config, args.settings)

    def ready() -> None:
        if args.demo:
            try:
                start_demo(config)
            except CommandError as error:  # the rest is up and of use without it
                logging.getLogger(__name__).error("the demonstration does not run: %s", error)
        print(describe(config, typed(passed)), flush=True)

    Supervisor(config, passed).run(ready)
    return 0
