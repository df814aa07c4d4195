"""Hears from the Docker Engine which containers are removed, which its log plugin protocol does not say.

Over the engine's API socket: its containers when it is reached, then its start and destroy events. Only a
container that this very engine has had before counts as removed when it is not there; an engine that cannot
be reached says nothing at all.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import orjson

__all__ = ["DEFAULT_SOCKET", "ContainersOf", "EngineWatch"]

log = logging.getLogger(__name__)

DEFAULT_SOCKET = Path("/var/run/docker.sock")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 15.0
_ANSWER_SECONDS = 30.0
_LONGEST_EVENT = 4 << 20
_EVENTS = {"type": ["container"], "event": ["start", "destroy"]}


class ContainersOf(Protocol):
    """Who wants to know."""

    def of_engine(self, engine: str) -> set[str]:
        """The IDs of the containers that this engine has confirmed, those known to be removed left out."""

    def confirm(self, engine: str, container_ids: set[str]) -> None:
        """These are containers of the engine, among others that do not log through us."""

    def remove(self, container_id: str) -> None:
        """The container is gone."""


class EngineWatch:
    """Follows one engine until cancelled."""

    def __init__(self, socket: Path, containers: ContainersOf) -> None:
        self._socket = socket
        self._containers = containers
        self._complained = ""
        self.answered = (
            False  #: whether the engine has said which containers it has, since this plugin's start
        )

    @property
    def pending(self) -> bool:
        """Whether there is an engine's socket that has not told yet which containers there are."""
        return not self.answered and self._socket.exists()

    async def run(self) -> None:
        """Reach the engine, again and again."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._follow()
                pause = _FIRST_PAUSE
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                self._complain(f"{type(error).__name__}: {error}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _complain(self, text: str) -> None:
        if text != self._complained:
            log.warning("hear of removed containers at %s: %s; none is taken for removed", self._socket, text)
            self._complained = text

    async def _follow(self) -> None:
        """One connection: compare, then listen until it ends."""
        connector = aiohttp.UnixConnector(str(self._socket))
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(
            "http://engine", connector=connector, timeout=timeout, read_bufsize=_LONGEST_EVENT
        ) as session:
            engine = _text(await self._get(session, "/info"), "ID")
            events = await self._open_events(session)
            async with events:
                # Events first: what is removed while we compare is heard of.
                await self._compare(session, engine)
                self._complained = ""
                self.answered = True
                async for line in events.content:
                    await self._heard(engine, orjson.loads(line))

    async def _open_events(self, session: aiohttp.ClientSession) -> aiohttp.ClientResponse:
        async with asyncio.timeout(_ANSWER_SECONDS):
            events = await session.get("/events", params={"filters": orjson.dumps(_EVENTS).decode()})
        if events.status != 200:
            events.close()
            raise ValueError(f"/events: answered {events.status}, expected 200")
        return events

    async def _compare(self, session: aiohttp.ClientSession, engine: str) -> None:
        known = await asyncio.to_thread(self._containers.of_engine, engine)
        listed = await self._get(session, "/containers/json", all="1")
        if not isinstance(listed, list):
            raise ValueError(f"/containers/json: {str(listed)[:80]}, expected a list")
        present = {_text(container, "Id") for container in listed}
        await asyncio.to_thread(self._containers.confirm, engine, present)
        for container_id in known - present:
            if await self._get(session, f"/containers/{container_id}/json") is None:
                await asyncio.to_thread(self._containers.remove, container_id)

    async def _heard(self, engine: str, event: Any) -> None:
        action, actor = _text(event, "Action"), event.get("Actor")
        container_id = _text(actor, "ID")
        if action == "destroy":
            await asyncio.to_thread(self._containers.remove, container_id)
        elif action == "start":
            await asyncio.to_thread(self._containers.confirm, engine, {container_id})

    async def _get(self, session: aiohttp.ClientSession, path: str, **params: str) -> Any:
        """A JSON answer; None for 404. Raises ClientError, TimeoutError, or ValueError for another answer."""
        async with asyncio.timeout(_ANSWER_SECONDS), session.get(path, params=params) as response:
            if response.status == 404:
                return None
            response.raise_for_status()
            return orjson.loads(await response.read())


def _text(value: object, key: str) -> str:
    text = value.get(key) if isinstance(value, dict) else None
    if not isinstance(text, str) or not text:
        raise ValueError(f"{str(value)[:80]!r} has no {key}")
    return text
