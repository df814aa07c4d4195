"""``taffrail agent``: the collector alone, what the systemd unit starts."""

from __future__ import annotations

import argparse

from taffrail.config import Config
from taffrail.errors import CommandError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options of its own: everything is configuration."""


def run(args: argparse.Namespace, config: Config) -> int:
    """Run until SIGINT or SIGTERM. Raises CommandError for what cannot be opened, bound or read."""
    from taffrail.heap import prepare

    prepare()
    import asyncio

    from taffrail.agent import Agent
    from taffrail.logs import setup_logging

    setup_logging(config.log)
    try:
        asyncio.run(Agent(config).run())
    except OSError as error:
        raise CommandError(f"the agent cannot go on: {error}") from error
    return 0
