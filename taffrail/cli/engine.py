"""``taffrail engine``: the engine alone, what the systemd unit starts."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from taffrail import __version__
from taffrail.config import Config
from taffrail.errors import CommandError
from taffrail.paths import Paths
from taffrail.wiring import make_paths

if TYPE_CHECKING:
    from runtime.options import EngineOptions
    from runtime.stats import StatsSource

__all__ = ["add_arguments", "engine_options", "run", "serve_engine"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options of its own: everything is configuration."""


def run(args: argparse.Namespace, config: Config) -> int:
    """Run until SIGINT or SIGTERM; containers go on running after that."""
    from taffrail.heap import prepare

    prepare()
    import asyncio

    from taffrail.logs import setup_logging

    setup_logging(config.log)
    asyncio.run(serve_engine(make_paths(config), config))
    return 0


def engine_options(paths: Paths, config: Config, stats: StatsSource | None) -> EngineOptions:
    """The engine's settings from the configuration."""
    from runtime.options import EngineOptions

    engine = config.engine
    return EngineOptions(
        state_dir=paths.engine_state,
        run_dir=paths.engine_run,
        version=__version__,
        runtime=engine.runtime,
        default_log_driver=engine.log_driver,
        default_log_options=dict(engine.log_opts),
        journal_max_bytes=engine.journal_max_bytes,
        bridge=engine.bridge,
        subnet=engine.subnet,
        stats=stats,
        proc=paths.proc,
        sys=paths.sys,
    )


async def serve_engine(paths: Paths, config: Config | None = None) -> None:
    """Build the engine, serve its API on ``paths.engine_socket``, and stop on SIGINT or SIGTERM.

    Raises CommandError if another engine uses the directories or the socket, or a setting is refused.
    """
    import asyncio
    import signal

    from runtime.api.server import ApiServer, SocketInUse
    from runtime.engine import Engine
    from runtime.errors import EngineError
    from runtime.shim.shims import TemplateError
    from runtime.state import Locked
    from taffrail.engine_stats import CgroupStats
    from taffrail.heap import freeze, keep_trimmed

    config = config or Config()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    engine = Engine(engine_options(paths, config, CgroupStats(paths)))
    server = ApiServer(engine, paths.engine_socket)
    try:
        try:
            await engine.start()
            await server.start()
        except (Locked, SocketInUse, EngineError, TemplateError) as error:
            raise CommandError(str(error)) from error
        freeze()
        trimming = asyncio.create_task(keep_trimmed())
        await stop.wait()
        trimming.cancel()
    finally:
        await server.stop()
        await engine.stop()
