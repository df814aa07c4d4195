"""kill -9 of any process at any point: each line is in Elasticsearch once."""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logdrivers.codecs import json_file as codec

#: A server starts within some minutes on a busy machine, in one test twice.
pytestmark = pytest.mark.timeout(900)

WORKER = Path(__file__).with_name("tail_to_elasticsearch.py")
ROOT = Path(__file__).parents[3]
#: Seconds a worker has to deliver everything, a start of the server among them.
LIFE = 400.0


@pytest.fixture
def root() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(dir="/tmp"))
    (made / "logs").mkdir()
    yield made
    shutil.rmtree(made)


class Writer:
    """Containers' logs, written and rotated as an engine does it."""

    def __init__(self, root: Path, names: list[str]) -> None:
        self.written = dict.fromkeys(names, 0)
        self.paths = {name: root / "logs" / f"{name}.log" for name in names}
        for path in self.paths.values():
            path.touch()

    def write(self, name: str, count: int) -> None:
        start = self.written[name]
        time = b'"time":"%s"}\n' % codec.format_time(1_795_203_812_000_000_000 + start * 1000)
        data = b"".join(
            b'{"log":"%s line %d \\"quoted\\" ........................................\\n","stream":"stdout",%s'
            % (name.encode(), number, time)
            for number in range(start, start + count)
        )
        with self.paths[name].open("ab") as file:
            file.write(data)
        self.written[name] += count

    def rotate(self, name: str) -> None:
        path = self.paths[name]
        for number in range(8, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                path.with_name(f"{path.name}.{number}").rename(path.with_name(f"{path.name}.{number + 1}"))
        path.rename(path.with_name(f"{path.name}.1"))
        path.touch()


class Worker:
    """The process under test."""

    def __init__(self, root: Path, url: str, stream: str) -> None:
        self._command = [sys.executable, str(WORKER), str(root), url, stream]
        self._process: subprocess.Popen[str] | None = None
        self._end: threading.Timer | None = None
        self.duplicates = 0

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self._end = threading.Timer(LIFE, self._process.kill)
        self._end.daemon = True
        self._end.start()

    def report(self) -> tuple[int, int, int]:
        """The next report: delivered, tailed, lag."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the process ended by itself, or was not done in {LIFE:.0f} s"
        delivered, tailed, lag, self.duplicates = map(int, line.split())
        return delivered, tailed, lag

    def kill(self) -> None:
        if self._end is not None:
            self._end.cancel()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


@pytest.fixture
def worker(root: Path, request: Any) -> Iterator[Any]:
    made: list[Worker] = []

    def start(url: str, stream: str) -> Worker:
        made.append(Worker(root, url, stream))
        return made[-1]

    yield start
    for each in made:
        each.kill()


def check(server: Any, stream: str, written: dict[str, int]) -> None:
    """Each line of each container once, with the right text."""
    assert server.count(stream) == sum(written.values())
    for name, count in written.items():
        for start in range(0, count, 5000):
            query = {
                "bool": {
                    "filter": [
                        {"term": {"container.name": name}},
                        {"range": {"event.sequence": {"gt": start, "lte": start + 5000}}},
                    ]
                }
            }
            found = [hit["_source"]["message"].split()[:3] for hit in server.documents(stream, query)]
            expected = [[name, "line", str(n)] for n in range(start, min(start + 5000, count))]
            assert found == expected


def test_exporter_killed_again_and_again(elasticsearch, root, worker):
    stream = f"logs-taffrail-t{uuid.uuid4().hex[:12]}"
    writer = Writer(root, ["a", "b", "c"])
    process = worker(elasticsearch.url, stream)
    chance = random.Random(7)
    duplicates = 0
    for round_number in range(8):
        for name in writer.written:
            writer.write(name, 1500)
            if round_number % 3 == 2:
                writer.rotate(name)
        process.start()
        for _ in range(chance.randrange(1, 6)):
            process.report()
        duplicates += process.duplicates
        process.kill()
    process.start()
    total = sum(writer.written.values())
    while True:
        process.report()
        elasticsearch_has = elasticsearch.count(stream)
        assert elasticsearch_has <= total
        if elasticsearch_has == total:
            break
    process.kill()
    check(elasticsearch, stream, writer.written)


def test_server_killed_in_the_middle(root, worker):
    running = importlib.import_module("elasticsearch_server").running
    stream = f"logs-taffrail-t{uuid.uuid4().hex[:12]}"
    writer = Writer(root, ["a", "b"])
    with running() as server:
        process = worker(server.url, stream)
        process.start()
        for name in writer.written:
            writer.write(name, 10_000)
        while process.report()[0] == 0:
            pass
        server.kill()
        for name in writer.written:
            writer.write(name, 10_000)
        while process.report()[1] < 40_000:
            pass
        server.start()
        while process.report()[2] or server.count(stream) < 40_000:
            pass
        process.kill()
        check(server, stream, writer.written)
