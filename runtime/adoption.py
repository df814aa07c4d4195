"""Taking over after a restart of the engine: what still runs, what ended meanwhile, what is to be started.

Everything is on disk: each container's definition and state, and in its run directory what its shim
recorded. So it makes no difference whether the engine before was stopped or killed.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from typing import TYPE_CHECKING

from logdrivers.driver import OptionError
from runtime.definition import Definition
from runtime.errors import EngineError
from runtime.shim.exit_status import INIT_FILE
from runtime.shim.gap import mark_gap_in_journal
from runtime.state import State, Status

if TYPE_CHECKING:
    from runtime.container import Container
    from runtime.engine import Engine

__all__ = ["adopt_all"]

log = logging.getLogger(__name__)


async def adopt_all(engine: Engine) -> None:
    """Bring every container on disk into the table and into the state it is really in."""
    containers: list[Container] = []
    for name, body, state in engine.directories.load():
        try:
            definition = Definition.from_json(body)
        except (KeyError, TypeError, ValueError) as error:
            log.error("cannot read the definition of container %s, leaving it alone: %s", name, error)
            continue
        containers.append(engine.make(definition, state))
    # Those with a network of their own first: a container: mode joins a namespace that must be known.
    was_running = {c.id for c in containers if c.state.running or c.state.status is Status.RESTARTING}
    await asyncio.gather(*(_settle(engine, container) for container in containers))
    await _sweep(engine)
    for container in containers:
        _restart_by_policy(container, container.id in was_running)


async def _settle(engine: Engine, container: Container) -> None:
    async with container.lock:
        try:
            if container.state.status in (Status.REMOVING, Status.DEAD):
                await _finish_removal(engine, container)
            elif container.state.running or engine.launcher.was_launched(container):
                await _adopt(engine, container)
            elif container.state.status is Status.RESTARTING:
                container.set_state(status=Status.EXITED)
        except (EngineError, OSError) as error:
            log.error("cannot take over container %s: %s", container.name, error)


async def _adopt(engine: Engine, container: Container) -> None:
    """A container that ran when the engine before went away."""
    launched = await engine.launcher.adopt(container)
    if launched is None:
        # Nothing of it is left to ask (a reboot, a cleared run directory).
        state: State = container.state
        await engine.launcher.clear(container)
        await asyncio.to_thread(_mark_gap, engine, container)
        container.set_state(
            status=Status.EXITED, pid=0, exit_code=255, finished_ns=state.finished_ns or state.started_ns
        )
        container.health.stop()
        log.warning("container %s went away with its shim; its exit code is not known", container.name)
        return
    handle = launched.handle
    paused = container.state.status is Status.PAUSED
    container.set_state(
        status=Status.PAUSED if paused else Status.RUNNING,
        pid=handle.pid,
        started_ns=handle.started_ns,
        cgroup=launched.cgroup,
        ever_started=True,
    )
    container.adopt(handle)
    log.info("adopted container %s (pid %d)", container.name, handle.pid)


def _mark_gap(engine: Engine, container: Container) -> None:
    """What was on its way to the journal has gone with the run directory: say so in the log."""
    if (engine.launcher.run_directory(container) / INIT_FILE).exists():
        return  # there is something left, which failed for another reason
    definition = container.definition
    try:
        mark_gap_in_journal(
            definition.log_driver, engine.logs.info(container), definition.config.tty, time.time_ns()
        )
    except (OptionError, OSError, ValueError) as error:
        log.error("cannot mark the gap in the log of container %s: %s", container.name, error)


async def _finish_removal(engine: Engine, container: Container) -> None:
    await engine.launcher.clear(container)
    await asyncio.to_thread(engine.launcher.remove_files, container)
    engine.containers.discard(container)
    container.removed()
    log.info("finished the removal of container %s", container.name)


async def _sweep(engine: Engine) -> None:
    """Remove what belongs to no container any more."""
    alive = {c.id for c in engine.containers.all() if c.state.running}
    for container_id in await asyncio.to_thread(engine.networks.reconcile, alive):
        log.info("released the network of container %s, which runs no more", container_id[:12])
    for path in engine.launcher.run_directories():
        if engine.containers.find(path.name) is None:
            log.info("removing %s, left by a container that is gone", path)
            await asyncio.to_thread(shutil.rmtree, path, True)


def _restart_by_policy(container: Container, was_running: bool) -> None:
    state = container.state
    if not container.exists or container.active or not state.ever_started:
        return
    if container.policy.at_boot(was_running, state.stopped_by_user, state.exit_code, state.restarts):
        log.info("starting container %s: restart policy %s", container.name, container.policy.name)
        container.restart_now()
