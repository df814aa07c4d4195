"""The Elasticsearch exporter: a cursor over the store whose lines become documents.

Delivers batch after batch until every document was answered for: taken, already there, or kept as a dead
letter with the reason. Rendering, sending and judging answers are the modules beside this one.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from collector.sink import Cursor, StoredBatch
from exporters.cursor_loop import Backoff, CursorLoop, Stopped
from exporters.elasticsearch import outcome as outcomes
from exporters.elasticsearch.bulk import Answer, Connection, Unreachable
from exporters.elasticsearch.config import ElasticsearchConfig
from exporters.elasticsearch.dead_letters import DeadLetter, DeadLetters
from exporters.elasticsearch.documents import Documents, Rendered, split_items
from exporters.elasticsearch.template import TemplateRefused, install

__all__ = ["ElasticsearchCounters", "ElasticsearchExporter", "RequestMemory"]

log = logging.getLogger(__name__)

_LEAST_REQUEST = 1 << 16


@dataclass(slots=True)
class ElasticsearchCounters:
    """What the exporter has done since it was made. Lines delivered = created + duplicates + rejected."""

    created: int = 0
    duplicates: int = 0  #: were there already, from a send whose answer got lost
    rejected: dict[str, int] = field(default_factory=dict)  #: dead letters, by Elasticsearch's error type
    dead_letters_dropped: int = 0
    retried: int = 0  #: documents sent again because the server was busy or failed
    requests: int = 0
    request_bytes: int = 0  #: before compression
    failures: dict[str, int] = field(default_factory=dict)  #: requests without success, by cause
    retention_lost_lines: int = 0
    delivered_lines: int = 0  #: the cursor moved past them
    up: bool = False  #: whether the last request was answered as it should be


class ElasticsearchExporter:
    """One cursor, one cluster. ``run`` in a task, or ``run_forever`` in a thread with ``stop`` from another.

    ``store_id`` tells apart the ids of documents from stores that number their sources anew: an identity made
    with the store. Without it one is kept in the state directory, to be removed with the store.
    """

    def __init__(self, config: ElasticsearchConfig, cursor: Cursor, store_id: str = "") -> None:
        self.dead_letters = DeadLetters(config.state_directory, config.dead_letter_bytes)
        self._config = config
        self._cursor = cursor
        self._counters = ElasticsearchCounters()
        identity = store_id or _identity(config.state_directory / "store-id")
        self._documents = Documents(identity, config.data_stream_parts)
        self._connection = Connection(config)
        self._stop = threading.Event()
        self._backoff = Backoff(self._stop, config.backoff_seconds, config.longest_backoff_seconds)
        self._loop = CursorLoop("elasticsearch", cursor, self._deliver, self._stop, config.batch_bytes)
        self._prepared = not config.install_template
        self._request_memory = RequestMemory()
        self._request_bytes = config.request_bytes  # halved when the server says 413

    async def run(self) -> None:
        """Deliver until cancelled. What is not committed then is delivered after the next start."""
        await self._loop.run(self._connection.close)

    def run_forever(self) -> None:
        """Deliver until ``stop``."""
        self._loop.run_forever()

    def stop(self) -> None:
        """Make ``run_forever`` return soon; from any thread."""
        self._stop.set()
        self._connection.close()

    def counters(self) -> ElasticsearchCounters:
        """A live view; read it, do not change it."""
        self._counters.delivered_lines = self._loop.counters.lines
        self._counters.retention_lost_lines = self._loop.counters.retention_lost_lines
        self._counters.dead_letters_dropped = self.dead_letters.dropped
        return self._counters

    def lag(self) -> tuple[int, int]:
        """Lines and bytes stored that are still to be delivered."""
        return self._cursor.lag()

    def replay(self) -> tuple[int, int]:
        """Send the dead letters again; returns how many were taken and how many stay.

        For a moment when ``run`` is not running (the ``replay`` command). Raises Unreachable.
        """
        letters = list(self.dead_letters.read())
        kept: list[DeadLetter] = []
        for letter in letters:
            answer = self._connection.bulk(letter.index, letter.item.encode(), outcomes.FILTER_PATH)
            result = outcomes.classify(answer.body, 1) if answer.status == 200 else None
            if result is None or not (result.created or result.duplicates):
                kept.append(letter)
        self.dead_letters.replace(kept)
        return len(letters) - len(kept), len(kept)

    # --- delivering ----------------------------------------------------------------------------------

    def _deliver(self, batch: StoredBatch) -> None:
        while not self._prepared:
            self._prepare()
        parts = (part for stored in batch.blocks for part in self._documents.render(stored))
        for request in self._request_memory.put_together(parts, self._request_bytes):
            self._send(request)

    def _prepare(self) -> None:
        try:
            install(self._connection, self._config.data_stream)
        except Unreachable as error:
            self._fail("unreachable", str(error))
        except TemplateRefused as error:
            self._fail("template", str(error))
        else:
            self._prepared = True
            self._backoff.reset()

    def _send(self, request: Rendered) -> None:
        """Return when every document of the request was answered for. Raises Stopped."""
        while True:
            answer = self._attempt(request)
            if answer is None:
                continue
            if answer.status in (400, 413):  # something in it: find out what by halves
                return self._send_halves(request, answer)
            if answer.status != 200:
                self._fail(f"status_{answer.status}", f"status {answer.status}: {answer.body[:300]!r}")
                continue
            try:
                result = outcomes.classify(answer.body, request.documents)
            except outcomes.UnexpectedAnswer as error:
                self._fail("unexpected_answer", str(error))
                continue
            rest = self._settle(request, result)
            if rest is None:
                return None
            request = rest

    def _attempt(self, request: Rendered) -> Answer | None:
        counters = self._counters
        counters.requests += 1
        counters.request_bytes += len(request.body)
        try:
            return self._connection.bulk(self._config.data_stream, request.body, outcomes.FILTER_PATH)
        except Unreachable as error:
            self._fail("unreachable", str(error))
            return None

    def _settle(self, request: Rendered, result: outcomes.Outcome) -> Rendered | None:
        """Count what was answered for; return what has to be sent again."""
        counters = self._counters
        if result.rejected:
            items = split_items(request.body)
            self._bury([(items[r.item], r.status, r.type, r.reason) for r in result.rejected])
        counters.created += result.created
        counters.duplicates += result.duplicates
        if not result.retry:
            self._succeed()
            return None
        counters.retried += len(result.retry)
        if result.created or result.duplicates or result.rejected:
            self._backoff.reset()  # it takes some: it is not down
        self._fail(f"item_{result.retry_status}", f"{len(result.retry)} documents got {result.retry_status}")
        items = split_items(request.body)
        return Rendered(b"".join(items[item] for item in result.retry), len(result.retry))

    def _send_halves(self, request: Rendered, answer: Answer) -> None:
        items = split_items(request.body)
        if len(items) == 1:
            cause = "too_large" if answer.status == 413 else "refused"
            self._bury([(items[0], answer.status, cause, answer.body[:1000].decode("utf-8", "replace"))])
            return
        middle = len(items) // 2
        if answer.status == 413:
            self._request_bytes = max(_LEAST_REQUEST, len(request.body) // 2)
        for half in (items[:middle], items[middle:]):
            self._send(Rendered(b"".join(half), len(half)))

    def _bury(self, rejected: list[tuple[bytes, int, str, str]]) -> None:
        now = time.time_ns()
        index = self._config.data_stream
        letters = [
            DeadLetter(now, index, status, cause, reason, item.decode("utf-8", "replace"))
            for item, status, cause, reason in rejected
        ]
        while True:
            try:
                self.dead_letters.add(letters)
            except OSError as error:
                self._fail("dead_letters", f"keeping {len(letters)} dead letters failed: {error}")
                continue
            break
        for letter in letters:
            self._counters.rejected[letter.type] = self._counters.rejected.get(letter.type, 0) + 1
        first = letters[0]
        log.error(
            "%s rejected %d documents, kept as dead letters; the first: %s: %s",
            index,
            len(letters),
            first.type,
            first.reason,
        )

    def _succeed(self) -> None:
        if not self._counters.up:
            log.info("delivering to %s at %s", self._config.data_stream, ", ".join(self._config.hosts))
        self._counters.up = True
        self._backoff.reset()

    def _fail(self, cause: str, text: str) -> None:
        """Count, log once per change of state, and pause. Raises Stopped."""
        if self._stop.is_set():
            raise Stopped
        failures = self._counters.failures
        failures[cause] = failures.get(cause, 0) + 1
        if self._counters.up or sum(failures.values()) == 1:
            log.error("delivering to %s failed, trying again: %s", self._config.data_stream, text)
        self._counters.up = False
        self._backoff.pause()


def _identity(path: Path) -> str:
    """The identity kept in this file, made when it is not there."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        identity = uuid.uuid4().hex
        part = path.with_suffix(".part")
        part.write_text(identity + "\n")
        part.replace(path)
        return identity


class RequestMemory:
    """Puts documents together to requests of at most so many bytes, in memory that is used again and again.

    (Memory that is new each time costs as much as the rendering: the kernel has to clear it.)
    """

    def __init__(self) -> None:
        self._memory = memoryview(b"")  # a view: assigning to a part of a bytearray makes a copy first

    def put_together(self, parts: Iterable[Rendered], most_bytes: int) -> Iterator[Rendered]:
        """Each request is valid until the next is asked for. A larger document is a request of its own."""
        if len(self._memory) < most_bytes:
            self._memory = memoryview(bytearray(most_bytes))
        size = documents = 0
        for part in (piece for whole in parts for piece in _cut(whole, most_bytes)):
            length = len(part.body)
            if size and size + length > most_bytes:
                yield Rendered(self._memory[:size], documents)
                size = documents = 0
            if length > most_bytes:
                yield part
                continue
            self._memory[size : size + length] = part.body
            size += length
            documents += part.documents
        if size:
            yield Rendered(self._memory[:size], documents)


def _cut(rendered: Rendered, most_bytes: int) -> Iterator[Rendered]:
    if len(rendered.body) <= most_bytes or rendered.documents == 1:
        yield rendered
        return
    items = split_items(rendered.body)
    middle = len(items) // 2
    for half in (items[:middle], items[middle:]):
        yield from _cut(Rendered(b"".join(half), len(half)), most_bytes)
