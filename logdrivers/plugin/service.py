"""All containers of one plugin: found again after a restart, started, stopped and read as the engine asks.

``state`` holds a directory per container (its record, its journal), ``run`` what a reboot may take. The
protocol's HTTP side is ``plugin/server.py``.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

from logdrivers.driver import OptionError
from logdrivers.plugin.container import PluginContainer
from logdrivers.plugin.engine import EngineWatch
from logdrivers.plugin.pump import Pump
from logdrivers.plugin.record import ContainerRecord
from logdrivers.plugin.removal import DEFAULT_MAX_BYTES, Removals
from logdrivers.plugin.requests import RequestError, Wanted, parse_info

__all__ = ["InUse", "PluginService"]

log = logging.getLogger(__name__)

_TIDY_SECONDS = 1.0
_LIMIT_SECONDS = 60.0


class InUse(RuntimeError):
    """Another plugin uses the state directory."""


class PluginService:
    """The plugin without its socket. Its methods run in any thread."""

    def __init__(self, state: Path, run: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        """``max_bytes``: what directories of containers that no longer log may take together."""
        self._removals = Removals(state, max_bytes, self._forget)
        self._directory = state / "containers"
        self._run = run
        self._containers: dict[str, PluginContainer] = {}
        self._changed = threading.Lock()
        self._pump = Pump()
        self._lock_fd = -1

    def start(self) -> None:
        """Take up every container again, then read. Raises InUse, OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._run.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_fd = os.open(self._directory.parent / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock_fd)
            raise InUse(f"another plugin uses {self._directory.parent}") from None
        self._removals.start()
        for directory in sorted(self._directory.iterdir()):
            self._take_up(directory)
        self._pump.start()

    def _take_up(self, directory: Path) -> None:
        try:
            record = ContainerRecord.load(directory)
            if record is None:
                directory.rmdir()  # made, and no more
                return
            wanted = parse_info(record.info, self._directory)
            container = self._container(wanted, record.info)
            container.resume(record.fifo, record.engine)
        except (OSError, ValueError, OptionError, RequestError) as error:
            log.error("take up container %s again: %s", directory.name[:12], error)
            return
        if container.active:
            log.info("%s: going on", container.name)
            self._pump.add(container)

    def _container(self, wanted: Wanted, described: dict[str, Any]) -> PluginContainer:
        container_id = wanted.info.container_id
        with self._changed:
            container = self._containers.get(container_id)
            if container is None:
                container = PluginContainer(wanted, described, self._run / f"{container_id}.spool")
                self._containers[container_id] = container
            return container

    # --- the engine's requests

    def start_logging(self, described: Any, fifo: str) -> None:
        """Raises RequestError, OptionError, OSError or ValueError, whose text the user of docker reads."""
        if not fifo.startswith("/"):
            raise RequestError(f"File is {fifo!r}, expected the path of a FIFO")
        wanted = parse_info(described, self._directory)
        while True:
            container = self._container(wanted, described)
            with container.lock:
                if not container.discarded:
                    container.start(wanted, described, fifo)
                    break
        self._pump.add(container)

    def stop_logging(self, fifo: str) -> None:
        """Returns when everything the engine wrote into the FIFO is on disk; an unknown FIFO is ended already."""
        for container in self.containers():
            if container.fifo == fifo:
                container.stop()
                self._pump.add(container)  # in case a disk refuses

    def drain(self) -> None:
        """Returns when everything engines have written into any FIFO is on disk, or its disk has refused."""
        for container in self.containers():
            container.drain()

    def find(self, described: Any) -> PluginContainer:
        """The container to read. Raises RequestError, OptionError."""
        return self._container(parse_info(described, self._directory), described)

    def containers(self) -> list[PluginContainer]:
        """All that are known."""
        with self._changed:
            return list(self._containers.values())

    # --- what an engine says of its containers (plugin/engine.py)

    def of_engine(self, engine: str) -> set[str]:
        """The IDs of the containers that this engine has confirmed, those known to be removed left out."""
        return {c.directory.name for c in self.containers() if c.engine == engine and not c.removed}

    def confirm(self, engine: str, container_ids: set[str]) -> None:
        """These are containers of the engine, among others that do not log through us."""
        for container in self.containers():
            if container.directory.name in container_ids:
                try:
                    container.confirm(engine)
                except OSError as error:
                    log.error("note which engine has %s: %s", container.name, error)

    def remove(self, container_id: str) -> None:
        """The container is gone: its directory goes as soon as its sink has everything."""
        with self._changed:
            container = self._containers.get(container_id)
        if container is not None:
            log.info("%s: removed by its engine", container.name)
            container.remove()

    # --- life

    async def tidy(self, watch: EngineWatch | None = None) -> None:
        """End deliveries that have nothing left to do, remove what nobody needs any more; until cancelled.

        ``watch`` is what hears from the engine, if something does.
        """
        # An engine that starts together with us gets the time to say which containers it has.
        limit_at = time.monotonic() + (_LIMIT_SECONDS if watch is not None else 0.0)
        while True:
            await asyncio.sleep(_TIDY_SECONDS)
            await asyncio.to_thread(self._end_deliveries)
            await asyncio.to_thread(self.clear_removed)
            if time.monotonic() >= limit_at:
                await asyncio.to_thread(self.keep_limit, watch)
                limit_at = time.monotonic() + _LIMIT_SECONDS

    def _end_deliveries(self) -> None:
        for container in self.containers():
            if container.delivering and not container.active:
                container.end_delivery()

    def clear_removed(self) -> None:
        """Remove the logs of containers that their engines have removed, as far as they are delivered."""
        for container in self.containers():
            if container.removed and not container.active and container.held_lines() == 0:
                self._removals.take(container, "its engine has removed it, everything is delivered")

    def keep_limit(self, watch: EngineWatch | None = None) -> None:
        """Bring the logs of containers that no longer log within the limit.

        Where an engine is heard, a container that it has confirmed stays until it is removed there, and
        others stay until it has answered.
        """
        heard = watch is not None
        unconfirmed = watch is None or not watch.pending
        self._removals.keep_limit(
            c for c in self.containers() if c.removed or (unconfirmed and not (heard and c.engine))
        )

    def _forget(self, container: PluginContainer) -> None:
        with self._changed:
            self._containers.pop(container.directory.name, None)

    def stop(self) -> None:
        """Leave everything to a successor: lines wait in the FIFOs."""
        self._pump.stop()
        for container in self.containers():
            container.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
