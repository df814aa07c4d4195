"""``taffrail agent``: the collector alone, what the systemd unit starts."""

from __future__ import annotations

import argparse
import contextlib

from taffrail.config import Config
from taffrail.errors import CommandError

__all__ = ["add_arguments", "run"]

_M_ARENA_MAX = -8  #: of mallopt(3), glibc's malloc.h


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options of its own: everything is configuration."""


def run(args: argparse.Namespace, config: Config) -> int:
    """Run until SIGINT or SIGTERM. Raises CommandError for what cannot be opened, bound or read."""
    import asyncio

    _keep_one_heap()
    from taffrail.agent import Agent
    from taffrail.logs import setup_logging

    setup_logging(config.log)
    try:
        asyncio.run(Agent(config).run())
    except OSError as error:
        raise CommandError(f"the agent cannot go on: {error}") from error
    return 0


def _keep_one_heap() -> None:
    """Have the C library's allocator share one heap among threads.

    A heap a thread, its default, keeps what each of them once needed: a fifth of the memory of an agent with 100
    containers. Their calls exclude each other anyway. Does nothing where the library has no ``mallopt`` (musl).
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
