"""Received messages to blocks, and blocks to the store: what the network inputs have alike.

Messages of one container that arrive in one go become one block of json-file records. While the store fails
(disk full) blocks wait here, nothing more is read from the network, and senders that asked for it get no
acknowledgement. Sockets and protocols are each input's own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from collector.inputs.intake import Intake, Sources
from collector.sink import Source
from logdrivers.block import Block, Encoding, Stream
from logdrivers.codecs import json_file
from logdrivers.codecs.gelf import escape

__all__ = ["Collator", "Delivery", "InputCounters", "Origin", "read_out", "render_attributes"]

log = logging.getLogger(__name__)

_OPEN = b'{"log":"'
_MARKS = {Stream.STDOUT: b'","stream":"stdout",', Stream.STDERR: b'","stream":"stderr",'}
_RETRY_SECONDS = 1.0


@dataclass(slots=True)
class InputCounters:
    """What an input has seen. Always: received = stored + waiting + the sum of dropped, in messages.

    ``dropped`` also counts, under ``kernel`` and ``connections``, what never became a message here:
    datagrams the kernel had no room for, and connections over the limit.
    """

    received: int = 0  #: messages, good or bad
    stored: int = 0  #: messages the store has
    waiting: int = 0  #: messages decoded while the store failed, to be stored
    duplicates: int = 0  #: messages sent again though stored, recognised by their chunk id
    bytes: int = 0  #: from the network, headers not counted
    connections: int = 0  #: open now
    accepted: int = 0  #: connections since the start
    store_failures: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  #: by cause


async def read_out(counters: InputCounters, seconds: float = 1.0) -> None:
    """Let the loop read what has arrived on open connections: until nothing comes, or for so long."""
    deadline = time.monotonic() + seconds
    quiet = 0
    while quiet < 3 and time.monotonic() < deadline:
        before = counters.bytes
        await asyncio.sleep(0)
        quiet = quiet + 1 if counters.bytes == before else 0


class Origin(NamedTuple):
    """Whose message it is, as far as the message says."""

    container_id: str
    container_name: str
    image: str


class _Group:
    __slots__ = ("first_ns", "last_ns", "latest", "logs", "rests", "streams")

    def __init__(self, time_ns: int) -> None:
        self.logs: list[bytes] = []
        self.rests: list[bytes] = []
        self.streams: set[Stream] = set()
        self.first_ns = self.last_ns = time_ns
        #: What the last record was made of, which the next often is, too.
        self.latest: tuple[Stream, int, bytes] | None = None


class Collator:
    """Gathers messages by container until ``take``."""

    def __init__(self) -> None:
        self._groups: dict[Origin, _Group] = {}

    def add(
        self,
        origin: Origin,
        stream: Stream,
        time_ns: int,
        text: bytes,
        attributes: bytes,
        *,
        whole: bool = True,
    ) -> None:
        """One message. ``attributes`` as ``render_attributes`` makes them; not ``whole`` leaves the line open."""
        group = self._groups.get(origin)
        if group is None:
            group = self._groups[origin] = _Group(time_ns)
        group.logs.append(text + b"\n" if whole and text[-1:] != b"\n" else text)
        latest = (stream, time_ns, attributes)
        if latest == group.latest:
            group.rests.append(group.rests[-1])
            return
        group.latest = latest
        group.rests.append(
            b'%s%s"time":"%s"}\n' % (_MARKS[stream], attributes, json_file.format_time(time_ns))
        )
        group.streams.add(stream)
        if time_ns < group.first_ns:
            group.first_ns = time_ns
        elif time_ns > group.last_ns:
            group.last_ns = time_ns

    def take(self) -> list[tuple[Origin, Block]]:
        """One block per container of what was added since the last call."""
        if not self._groups:
            return []
        blocks = [(origin, _block(group)) for origin, group in self._groups.items()]
        self._groups.clear()
        return blocks


def _block(group: _Group) -> Block:
    parts: list[bytes] = []
    for text, rest in zip(_escaped(group.logs), group.rests, strict=True):
        parts += (_OPEN, text, rest)
    return Block(
        data=b"".join(parts),
        encoding=Encoding.JSON_FILE,
        stream=next(iter(group.streams)) if len(group.streams) == 1 else Stream.MIXED,
        first_ns=group.first_ns,
        last_ns=group.last_ns,
        lines=len(group.logs),
    )


_DELETE = b"\x7f"


def _escaped(texts: list[bytes]) -> list[bytes]:
    """Each text escaped: all at once where a byte that stays as it is can mark the ends."""
    joined = _DELETE.join(texts)
    if joined.count(_DELETE) != len(texts) - 1:
        return [json_file.escape(text) for text in texts]
    return json_file.escape(joined).split(_DELETE)


def render_attributes(fields: tuple[tuple[str, str], ...], cached: bool = False) -> bytes:
    """``"attrs":{…},`` as Docker writes it, keys sorted; nothing for no fields.

    ``cached`` for small fields: a container's lines mostly have the same.
    """
    return _render_cached(fields) if cached else _render(fields)


def _render(fields: tuple[tuple[str, str], ...]) -> bytes:
    if not fields:
        return b""
    pairs = sorted((key.encode("utf-8", "replace"), value) for key, value in fields)
    return b'"attrs":{%s},' % b",".join(
        b'"%s":"%s"' % (escape(key), escape(value.encode("utf-8", "replace"))) for key, value in pairs
    )


_render_cached = lru_cache(maxsize=1024)(_render)


class _Waiting(NamedTuple):
    blocks: list[tuple[Source, Block]]
    stored: Callable[[], None] | None


class Delivery:
    """Hands blocks to the store in order, and holds on to them while it fails.

    ``pause`` is called when the store begins to fail and ``resume`` when it takes blocks again.
    """

    def __init__(
        self,
        name: str,
        intake: Intake,
        sources: Sources,
        counters: InputCounters,
        pause: Callable[[], None],
        resume: Callable[[], None],
    ) -> None:
        self._name = name
        self._intake = intake
        self._sources = sources
        self._counters = counters
        self._pause, self._resume = pause, resume
        self._waiting: deque[_Waiting] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def paused(self) -> bool:
        """Whether the store fails at present: nothing more should be read."""
        return bool(self._waiting)

    def submit(
        self, blocks: Iterable[tuple[Origin, Block]], stored: Callable[[], None] | None = None
    ) -> None:
        """Store the blocks; ``stored`` is called once they are, at once or later, or never if that fails."""
        named = [(self._sources(*origin, self._name), block) for origin, block in blocks]
        failing = bool(self._waiting)
        self._waiting.append(_Waiting(named, stored))
        self._counters.waiting += sum(block.lines for _, block in named)
        if not failing:
            self._drain()

    def close(self) -> None:
        """Try a last time, then count what cannot be stored as dropped (``store``)."""
        if self._timer is not None:
            self._timer.cancel()
        if self._waiting:
            self._drain(last=True)
        if self._counters.waiting:
            self._counters.dropped["store"] += self._counters.waiting
            log.error("%s input: %d messages could not be stored", self._name, self._counters.waiting)
        self._counters.waiting = 0
        self._waiting.clear()

    def _drain(self, last: bool = False) -> None:
        was_failing, self._timer = self._timer is not None, None
        while self._waiting:
            blocks, stored = self._waiting[0]
            while blocks:
                source, block = blocks[0]
                try:
                    self._intake.append(source, block)
                except OSError as error:
                    self._failed(error, was_failing, last)
                    return
                del blocks[0]
                self._counters.waiting -= block.lines
                self._counters.stored += block.lines
            self._waiting.popleft()
            if stored is not None:
                stored()
        if was_failing and not last:
            log.warning("%s input: the store takes lines again", self._name)
            self._resume()

    def _failed(self, error: OSError, was_failing: bool, last: bool) -> None:
        self._counters.store_failures += 1
        if not was_failing:
            log.error("%s input: cannot store a block, reading stops until it can: %s", self._name, error)
        if last:
            return
        if not was_failing:
            self._pause()
        self._timer = asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._drain)
