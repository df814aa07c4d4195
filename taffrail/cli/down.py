"""``taffrail down``: stops what goes on running after ``taffrail up`` ended: containers, shims, bridges, rules."""

from __future__ import annotations

import argparse

from taffrail.config import Config

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--time`` is the grace before a container is killed."""
    parser.add_argument(
        "-t", "--time", type=float, default=None, metavar="SECONDS", help="grace before SIGKILL (10)"
    )


def run(args: argparse.Namespace, config: Config) -> int:
    """Adopt what runs, stop it, and take it out of the kernel. State, images and logs stay."""
    import asyncio

    from taffrail.logs import setup_logging

    setup_logging(config.log)
    print(asyncio.run(_down(config, args.time)))
    return 0


async def _down(config: Config, grace_seconds: float | None) -> str:
    """Raises CommandError if an engine runs: its containers are stopped through it."""
    import asyncio

    from runtime.engine import Engine
    from runtime.state import Locked
    from taffrail.cli.engine import engine_options
    from taffrail.errors import CommandError
    from taffrail.wiring import make_paths

    engine = Engine(engine_options(make_paths(config), config, None))
    try:
        await engine.start()
    except Locked as error:
        raise CommandError(f"{error}; stop it first (Ctrl-C in front of 'taffrail up')") from error
    try:
        running = [container for container in engine.containers.all() if container.state.running]
        results = await asyncio.gather(*(c.stop(grace_seconds) for c in running), return_exceptions=True)
        failed = [f"{c.name}: {r}" for c, r in zip(running, results, strict=True) if isinstance(r, Exception)]
        if failed:
            raise CommandError(f"not stopped: {'; '.join(failed)}")
        await asyncio.to_thread(engine.networks.destroy)
        await engine.shims.shutdown()
    finally:
        await engine.stop()
    return f"{len(running)} containers stopped"
