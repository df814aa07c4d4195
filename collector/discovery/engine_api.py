"""Follows one engine (ours, Docker, podman) through its API socket: one list, then events, no polling.

The engine's events say that something changed, an inspect of that container says what is true now. What
the answers mean is in ``inspection.py``; who wants to know subscribes to the registry.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from collector.cgroup.layout import UNIFIED, container_paths, parse_cgroup
from collector.container import Container
from collector.discovery.inspection import (
    Event,
    container_of_event,
    engine_name,
    parse_event,
    parse_inspect,
)
from collector.discovery.registry import RUNNING, Containers
from collector.discovery.sockets import Identity, identity, socket_changed

__all__ = ["EngineDiscovery"]

logger = logging.getLogger(__name__)

#: Events after which the engine is asked what its container is like now.
_ASK = frozenset(
    [
        "create",
        "start",
        "restart",
        "die",
        "died",
        "stop",
        "pause",
        "unpause",
        "rename",
        "update",
        "oom",
        "health_status",
        "connect",
        "disconnect",
    ]
)
_MAX_EVENT = 4 << 20
_ANSWER_SECONDS = 20.0
#: Attempts at growing intervals before a socket nobody answers at is left alone until it is made anew,
#: and how long it is left alone at most.
_ATTEMPTS = 8
_NOBODY_SECONDS = 300.0


class EngineDiscovery:
    """Keeps the registry in step with one engine."""

    def __init__(
        self, socket: Path, containers: Containers, proc: Path = Path("/proc"), max_wait: float = 5.0
    ) -> None:
        self.socket = socket
        self.engine = ""  #: which engine it is, once it has answered
        self.connected = False
        self.connections = 0
        self.events = 0
        self.failures: dict[str, int] = {}  #: by what failed: connect, inspect, event
        self._containers = containers
        self._proc = proc
        self._max_wait = max_wait
        self._newest_ns = 0
        self._newest: Event | None = None
        self._down_told = False
        self._mine: set[str] = set()  # ids this socket has told of
        self._former: dict[str, Container] = {}  # runs whose end is still to be told, beside the next one

    async def run(self) -> None:
        """Follow the engine until cancelled; while it is away, wait for its socket to be made again."""
        wait, attempts = 0.1, 0
        while True:
            seen, socket = self.connections, identity(self.socket)
            nobody = False
            try:
                await self._follow()
                reason = "the engine closed the connection"
            except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
                reason = f"{type(error).__name__}: {error}"
                nobody = isinstance(error, aiohttp.ClientConnectorError | FileNotFoundError)
            self._lost(reason)
            if self.connections > seen:
                wait, attempts = 0.1, 0
            attempts += 1
            if nobody and (socket is None or attempts > _ATTEMPTS):
                if await self._made_anew(socket):
                    wait, attempts = 0.1, 0
                continue
            await asyncio.sleep(wait * random.uniform(0.8, 1.2))
            wait = min(wait * 2, self._max_wait)

    async def _made_anew(self, socket: Identity) -> bool:
        try:
            return await socket_changed(self.socket, socket, _NOBODY_SECONDS)
        except OSError as error:
            logger.warning("cannot wait for %s to be made: %s", self.socket, error)
            await asyncio.sleep(self._max_wait)
            return False

    def follows(self, engine: str) -> bool:
        """Whether events of an engine by this name are heard, or may be in a moment: the first attempt runs."""
        return self.engine == engine if self.connected else not (self.connections or self.failures)

    @property
    def absent(self) -> bool:
        """Nobody has ever answered, and there is no socket: an engine this host does not have."""
        return self.connections == 0 and not self.socket.exists()

    def _lost(self, reason: str) -> None:
        self.connected = False
        self.failures["connect"] = self.failures.get("connect", 0) + 1
        if not self._down_told:
            self._down_told = True
            if self.absent:
                logger.info("no engine at %s yet: it will be followed when there is one", self.socket)
            else:
                logger.warning("cannot follow the engine at %s, will go on trying: %s", self.socket, reason)

    async def _follow(self) -> None:
        """One connection: events first, so that nothing falls between them and the list."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        connector = aiohttp.UnixConnector(path=str(self.socket))
        async with aiohttp.ClientSession(
            "http://engine", connector=connector, timeout=timeout, read_bufsize=1 << 20
        ) as session:
            self.engine = engine_name(await self._get(session, "/version"))
            params = {"filters": '{"type":["container","network"]}'}
            if self._newest_ns:  # what happened while we were away
                params["since"] = f"{self._newest_ns // 10**9}.{self._newest_ns % 10**9:09d}"
            # Podman sends the headers with the first event only, so the answer is awaited beside the list.
            listening = asyncio.ensure_future(session.get("/events", params=params))
            try:
                done, _ = await asyncio.wait({listening}, timeout=0.5)
                if done:
                    listening.result().raise_for_status()
                await self._list(session)
                self._now_connected()
                async with await listening as response:
                    response.raise_for_status()
                    async for line in _lines(response):
                        await self._heard(session, line)
            finally:
                listening.cancel()

    def _now_connected(self) -> None:
        self.connected = True
        self.connections += 1
        if self._down_told or self.connections == 1:
            logger.info("following %s at %s", self.engine, self.socket)
        self._down_told = False

    async def _list(self, session: aiohttp.ClientSession) -> None:
        """Bring the registry to what the engine has now."""
        listed = await self._get(session, "/containers/json", all="1")
        ids = [str(entry["Id"]) for entry in listed]
        gate = asyncio.Semaphore(4)

        async def one(container_id: str) -> None:
            async with gate:
                await self._inspect(session, container_id)

        await asyncio.gather(*map(one, ids))
        for container_id in self._mine.difference(ids):
            self._gone(container_id)

    def _gone(self, container_id: str) -> None:
        self._mine.discard(container_id)
        self._former.pop(container_id, None)
        self._containers.remove(container_id, self.engine)

    async def _heard(self, session: aiohttp.ClientSession, line: bytes) -> None:
        """Take one event. One that cannot be understood is counted and passed over."""
        try:
            event = parse_event(line)
        except ValueError as error:
            self.failures["event"] = self.failures.get("event", 0) + 1
            logger.warning("cannot read an event of %s at %s: %s", self.engine, self.socket, error)
            return
        if event is None or event == self._newest:  # ``since`` brings the last one again
            return
        if event.time_ns >= self._newest_ns:
            self._newest, self._newest_ns = event, event.time_ns
        self.events += 1
        if event.action in ("destroy", "remove"):
            self._gone(event.container_id)
            return
        if event.action in _ASK:
            self._note(event)
            await self._inspect(session, event.container_id, event)

    def _note(self, event: Event) -> None:
        """Keep what the event itself tells: by the time of the inspect the container may be removed."""
        known = self._containers.get(event.container_id)
        if known is None or known.id != event.container_id:
            if not event.name:
                return  # a network's event for a container we never heard of
            known = container_of_event(event, self.engine)
            if event.action == "create":
                self._mine.add(event.container_id)
                self._containers.update(known)
        # An inspect after an earlier event may have been answered of the next run already. A start that is still
        # to come is no next run's: the clock was set back since.
        former = self._former.get(known.id) or _run_before(known, 0)
        earlier = event.time_ns < known.started_ns <= time.time_ns()
        if event.action == "start" and earlier:
            self._former[known.id] = _run_before(known, event.time_ns)
        elif event.action == "oom" and earlier:
            self._former[known.id] = replace(former, oom_killed=True)
        elif event.action == "oom" and known.state in RUNNING:
            # The answer to the inspect may be about its next run.
            self._containers.update(replace(known, oom_killed=True))
        if event.action in ("die", "died"):
            self._former.pop(known.id, None)
            if earlier:
                known = former
            self._containers.update(
                replace(
                    known,
                    state="exited",
                    pid=0,
                    exit_code=event.exit_code,
                    finished_ns=event.time_ns,
                    oom_killed=known.oom_killed and event.exit_code in (None, 137),
                    health="",
                )
            )

    async def _inspect(
        self, session: aiohttp.ClientSession, container_id: str, event: Event | None = None
    ) -> None:
        """Ask for one container, maybe for an event, and update it. One that is gone already is left as it is known."""
        try:
            answer = await self._get(session, f"/containers/{container_id}/json")
            if answer is None:
                return
            container = parse_inspect(answer, self.engine)
        except ValueError as error:
            self.failures["inspect"] = self.failures.get("inspect", 0) + 1
            logger.warning("cannot inspect container %s of %s: %s", container_id[:12], self.engine, error)
            return
        self._mine.add(container.id)
        known = self._containers.get(container_id)
        if known is not None and known.state in RUNNING and 0 < known.started_ns < container.started_ns:
            self._former[container.id] = known
        elif known is not None and container.state in RUNNING and known.started_ns == container.started_ns:
            # The engine says so only once it has ended, and by then it may be removed.
            container = replace(container, oom_killed=container.oom_killed or known.oom_killed)
        elif event is not None and event.action == "start" and event.time_ns < container.started_ns:
            self._former[container.id] = _run_before(container, event.time_ns)
        cgroup = self._cgroup(container) or container.cgroup or (known.cgroup if known else "")
        self._containers.update(replace(container, cgroup=cgroup))

    def _cgroup(self, container: Container) -> str:
        """The container's cgroup path, from its process; "" when there is none any more."""
        if container.state not in RUNNING or container.pid <= 0:
            return ""
        try:
            data = (self._proc / str(container.pid) / "cgroup").read_bytes()
        except OSError:
            return ""  # it ended between the answer and now
        paths = container_paths(parse_cgroup(data), container.id)
        for controller in ("memory", "cpu", "pids", UNIFIED):
            if controller in paths:
                return paths[controller]
        return next(iter(paths.values()), "")

    async def _get(self, session: aiohttp.ClientSession, path: str, **params: str) -> Any:
        """A JSON answer; None for 404. Raises ClientError, TimeoutError, or ValueError on other text."""
        async with asyncio.timeout(_ANSWER_SECONDS):
            async with session.get(path, params=params) as response:
                if response.status == 404:
                    return None
                response.raise_for_status()
                return orjson.loads(await response.read())


def _run_before(container: Container, started_ns: int) -> Container:
    """The run before the one known of a container, as far as that tells; ``started_ns`` is 0 where it is not known."""
    return replace(
        container,
        started_ns=started_ns,
        finished_ns=0,
        exit_code=None,
        oom_killed=False,
        restarts=max(container.restarts - 1, 0),
    )


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The events of a stream, one JSON object a line. Raises ValueError on a line of 4 MB or more."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield line
        if len(rest) > _MAX_EVENT:
            raise ValueError(f"event of more than {_MAX_EVENT} bytes")
