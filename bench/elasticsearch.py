"""CPU per line from a json-file log to the store, and on to Elasticsearch bulk requests.

``python -m bench.elasticsearch [--lines N] [--url http://host:9200]``. Without ``--url`` a process on
loopback answers the requests; its CPU is not counted. Sending is measured twice: by the client's transport,
which the exporter uses, and by aiohttp.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import multiprocessing
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import aiohttp
from isal import igzip

from bench.table import Row, print_table
from collector.inputs.json_file import JsonFileTail
from collector.sink import Source
from collector.store import Store
from exporters.elasticsearch.bulk import Connection
from exporters.elasticsearch.config import ElasticsearchConfig
from exporters.elasticsearch.documents import Documents, Rendered
from exporters.elasticsearch.exporter import RequestMemory
from exporters.elasticsearch.outcome import FILTER_PATH, classify
from logdrivers.block import Block
from logdrivers.codecs import json_file as codec

T = TypeVar("T")

SOURCE = Source(
    "c" * 64,
    "shop-web-1",
    "registry.example.org/shop/web:1.4.2",
    "host1",
    "json-file",
    "docker",
    {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"},
)


def write_log(path: Path, lines: int) -> None:
    """About 100 bytes of text a line, each with its own time, as dockerd writes them."""
    with path.open("wb") as file:
        for start in range(0, lines, 10_000):
            file.write(
                b"".join(
                    b'{"log":"%s\\n","stream":"stdout","time":"%s"}\n'
                    % (
                        codec.escape(
                            b"2026-11-20 19:43:32 INFO request %07d handled path=/items/%d status=200 took=%dms user=%d"
                            % (n, n * 7919 % 10_007, n * 31 % 977, n * 104_729 % 100_003)
                        ),
                        codec.format_time(1_795_203_812_000_000_000 + n * 1_000_003),
                    )
                    for n in range(start, min(start + 10_000, lines))
                )
            )


class Discard:
    """An intake that keeps nothing: what is measured is the tail alone."""

    def append(self, source: Source, block: Block, checkpoint: tuple[str, bytes] | None = None) -> None:
        """Take it."""

    def checkpoint(self, key: str) -> bytes | None:
        """None: from the start."""


def cpu(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def drain(tail: JsonFileTail) -> None:
    while tail.turn():
        pass
    tail.close()


def _serve(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    """Answer every bulk request as if each document were created."""
    length = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
    data = b""
    while chunk := connection.recv(1 << 20):
        data += chunk
        end = data.find(b"\r\n\r\n")
        match = length.search(data, 0, end + 2)
        if end < 0 or match is None or len(data) < end + 4 + int(match[1]):
            continue
        body = data[end + 4 :]
        if body[:2] == b"\x1f\x8b":
            body = igzip.decompress(body)
        created = b",".join([b'{"create":{"status":201}}'] * body.count(b'{"create":'))
        answer = b'{"errors":false,"items":[%b]}' % created
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(
            answer
        )
        connection.sendall(head + answer)
        data = b""


@contextmanager
def sink() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = multiprocessing.Process(target=_serve, args=(listener,), daemon=True)
        process.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.terminate()
            process.join()


async def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(headers={"content-type": "application/x-ndjson"})


async def _by_aiohttp(session: aiohttp.ClientSession, url: str, rendered: Rendered) -> None:
    async with session.post(f"{url}/bench/_bulk?filter_path={FILTER_PATH}", data=rendered.body) as answer:
        classify(await answer.read(), rendered.documents)


def _deliver(
    store: Store,
    request_bytes: int,
    senders: Mapping[str, Callable[[Rendered], object]],
    spent: dict[str, float],
) -> int:
    """Move the whole store through a cursor and every sender; adds to ``spent``, returns bytes of bodies."""
    documents = Documents("bench", ("logs", "taffrail", "default"))
    memory = RequestMemory()
    cursor = store.cursor("bench")
    size = 0

    def timed(work: str, function: Callable[[], T]) -> T:
        start = time.process_time()
        result = function()
        spent[work] += time.process_time() - start
        return result

    while (batch := timed("store to cursor", cursor.next)).blocks:
        parts = (part for stored in batch.blocks for part in documents.render(stored))
        requests = memory.put_together(parts, request_bytes)
        while (rendered := timed("documents", lambda: next(requests, None))) is not None:  # noqa: B023
            size += len(rendered.body)
            for work, send in senders.items():
                timed(work, functools.partial(send, rendered))
        timed("store to cursor", functools.partial(cursor.commit, batch.token))
    return size


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lines", type=int, default=300_000)
    parser.add_argument("--url", default="")
    given = parser.parse_args()
    lines = given.lines
    rows: list[Row] = []

    def row(work: str, seconds: float, budget: float | None = None) -> float:
        rows.append(Row(work, "µs/line", seconds / lines * 1e6, budget=budget))
        return seconds

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        log = directory / "c-json.log"
        write_log(log, lines)
        row("tail json-file to nothing", cpu(lambda: drain(JsonFileTail(log, "k", SOURCE, Discard()))))
        store = Store(directory / "store", background=False)
        tailed = row(
            "tail json-file to store", cpu(lambda: drain(JsonFileTail(log, "k", SOURCE, store))), 0.4
        )
        with sink() as own:
            url = given.url or own
            config = ElasticsearchConfig((url,), directory / "state")
            plain = Connection(config)
            packed = Connection(ElasticsearchConfig((url,), directory / "state", compression="gzip"))
            loop = asyncio.new_event_loop()
            session = loop.run_until_complete(_session())
            senders: dict[str, Callable[[Rendered], object]] = {
                "send and classify": lambda r: classify(
                    plain.bulk("bench", r.body, FILTER_PATH).body, r.documents
                ),
                "the same by aiohttp": lambda r: loop.run_until_complete(_by_aiohttp(session, url, r)),
                "the same with gzip": lambda r: classify(
                    packed.bulk("bench", r.body, FILTER_PATH).body, r.documents
                ),
            }
            spent = dict.fromkeys(["store to cursor", "documents", *senders], 0.0)
            size = _deliver(store, config.request_bytes, senders, spent)
            plain.close()
            packed.close()
            loop.run_until_complete(session.close())
            loop.close()
        for work, seconds in spent.items():
            row(work, seconds)
        whole = tailed + spent["store to cursor"] + spent["documents"] + spent["send and classify"]
        row("tail json-file to bulk requests, by the store", whole, 1.0)
        row("documents and sending", spent["documents"] + spent["send and classify"])
        store.close()
    print(f"{lines} lines, {size / lines:.0f} bytes a document")
    print_table(rows)


if __name__ == "__main__":
    main()
