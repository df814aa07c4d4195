"""The engine's events: what happened to which object, as ``docker events`` and the collector read it.

One bus per engine. It keeps a bounded history for ``since`` and gives every subscriber a bounded queue; a
subscriber that does not read loses its oldest events, and the number it lost is counted, so the engine
never waits for one. Formatting for HTTP is left to ``runtime/api/events.py``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Event", "EventBus", "Filters", "Subscription"]

log = logging.getLogger(__name__)

HISTORY = 1024  #: events kept for ``since`` (Docker keeps 256)
QUEUE = 4096  #: events a slow subscriber may fall behind


@dataclass(frozen=True, slots=True)
class Event:
    """One event. ``kind`` is ``container``, ``image``, ``network``, ``volume`` or ``daemon``."""

    kind: str
    action: str
    id: str
    attributes: Mapping[str, str]
    time_ns: int

    def render(self) -> dict[str, object]:
        """The event as the Engine API writes it, with the old fields for containers and images."""
        body: dict[str, object] = {}
        if self.kind in ("container", "image"):
            body = {"status": self.action, "id": self.id}
            if self.kind == "container":
                body["from"] = self.attributes.get("image", "")
        return body | {
            "Type": self.kind,
            "Action": self.action,
            "Actor": {"ID": self.id, "Attributes": dict(self.attributes)},
            "scope": "local",
            "time": self.time_ns // 1_000_000_000,
            "timeNano": self.time_ns,
        }


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of ``GET /events``: any value of a key, all keys (Docker's rule)."""

    terms: Mapping[str, Sequence[str]]

    def match(self, event: Event) -> bool:
        """Whether a subscriber with these filters gets the event."""
        return all(any(_term(event, key, v) for v in values) for key, values in self.terms.items() if values)


def _term(event: Event, key: str, value: str) -> bool:
    match key:
        case "type":
            return event.kind == value
        case "event":
            # ``health_status: healthy`` is selected by ``health_status`` too.
            return event.action == value or event.action.split(":", 1)[0] == value
        case "label":
            name, sep, wanted = value.partition("=")
            have = event.attributes.get(name)
            return have is not None and (not sep or have == wanted)
        case "container" | "image" | "network" | "volume" | "daemon":
            if event.kind == key:
                names = (event.id, event.attributes.get("name", ""))
                return value in names or (len(value) >= 4 and event.id.startswith(value))
            if key == "image":
                return event.attributes.get("image", "") == value
            return key == "container" and event.attributes.get("container", "").startswith(value)
        case "scope":
            return value == "local"
        case _:
            return True


class Subscription:
    """One reader's queue. ``lost`` counts the events it was too slow for."""

    def __init__(self, filters: Filters) -> None:
        self._filters = filters
        self._queue: deque[Event] = deque()
        self._ready = asyncio.Event()
        self.lost = 0

    def push(self, event: Event) -> None:
        """Hand over an event; drops the oldest when the reader is ``QUEUE`` behind."""
        if not self._filters.match(event):
            return
        if len(self._queue) >= QUEUE:
            self._queue.popleft()
            self.lost += 1
        self._queue.append(event)
        self._ready.set()

    async def next(self) -> Event:
        """The next event; waits for one."""
        while not self._queue:
            self._ready.clear()
            await self._ready.wait()
        return self._queue.popleft()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            yield await self.next()


class EventBus:
    """Publishes events to subscribers and remembers the last of them."""

    def __init__(self) -> None:
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._subscriptions: set[Subscription] = set()
        self.published = 0
        self.lost = 0

    @property
    def subscribers(self) -> int:
        """How many read the stream now."""
        return len(self._subscriptions)

    def publish(self, kind: str, action: str, object_id: str, attributes: Mapping[str, str]) -> Event:
        """Make an event of now and hand it to everybody; never waits."""
        event = Event(kind, action, object_id, dict(attributes), time.time_ns())
        self.published += 1
        self._history.append(event)
        for subscription in self._subscriptions:
            subscription.push(event)
        return event

    def history(self, since_ns: int, until_ns: int, filters: Filters) -> list[Event]:
        """Remembered events with ``since_ns <= time <= until_ns`` (0: no bound)."""
        return [
            event
            for event in self._history
            if event.time_ns >= since_ns
            and (not until_ns or event.time_ns <= until_ns)
            and filters.match(event)
        ]

    @contextmanager
    def subscribe(self, filters: Filters) -> Iterator[Subscription]:
        """A queue of what is published from now on, for the time of the ``with``."""
        subscription = Subscription(filters)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            if subscription.lost:
                self.lost += subscription.lost
                log.warning("a reader of the event stream was too slow and lost %d events", subscription.lost)
