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
from pathlib import Path
from typing import Any

from logdrivers.driver import OptionError
from logdrivers.plugin.container import PluginContainer
from logdrivers.plugin.pump import Pump
from logdrivers.plugin.record import ContainerRecord
from logdrivers.plugin.requests import RequestError, Wanted, parse_info

__all__ = ["InUse", "PluginService"]

log = logging.getLogger(__name__)

_TIDY_SECONDS = 1.0


class InUse(RuntimeError):
    """Another plugin uses the state directory."""


class PluginService:
    """The plugin without its socket. Its methods run in any thread."""

    def __init__(self, state: Path, run: Path) -> None:
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
        for directory in sorted(self._directory.iterdir()):
            self._take_up(directory)
        self._pump.start()

    def _take_up(self, directory: Path) -> None:
        try:
            record = ContainerRecord.load(directory)
            if record is None:
                return
            wanted = parse_info(record.info, self._directory)
            container = self._container(wanted, record.info)
            container.resume(record.fifo)
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
        container = self._container(wanted, described)
        container.start(wanted, described, fifo)
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

    # --- life

    async def tidy(self) -> None:
        """End deliveries that have nothing left to do, until cancelled."""
        while True:
            await asyncio.sleep(_TIDY_SECONDS)
            for container in self.containers():
                if container.delivering and not container.active:
                    await asyncio.to_thread(container.end_delivery)

    def stop(self) -> None:
        """Leave everything to a successor: lines wait in the FIFOs."""
        self._pump.stop()
        for container in self.containers():
            container.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
