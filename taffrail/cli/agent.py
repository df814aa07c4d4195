"""``taffrail agent``: the collector alone, what the systemd unit starts."""

from __future__ import annotations

import argparse

from taffrail.config import Config

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options of its own: everything is configuration."""


def run(args: argparse.Namespace, config: Config) -> int:
    """Run until SIGINT or SIGTERM."""
    import asyncio

    from taffrail.agent import Agent
    from taffrail.logs import setup_logging

    setup_logging(config.log)
    asyncio.run(Agent(config).run())
    return 0
