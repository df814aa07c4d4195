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
    from taffrail.demo import start_demo
    from taffrail.logs import setup_logging
    from taffrail.up import Supervisor
    from taffrail.wiring import describe

    setup_logging(config.log)
    passed = [part for setting in args.settings for part in ("--set", setting)]
    if args.config:
        passed = ["--config", str(args.config), *passed]

    def ready() -> None:
        if args.demo:
            start_demo(config)
        print(describe(config), flush=True)

    Supervisor(config, passed).run(ready)
    return 0
