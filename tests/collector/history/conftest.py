"""Rings filled by hand, and what is recorded from them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from collector.container import Container
from collector.discovery.registry import Containers
from collector.history.archive import Archive
from collector.history.reader import HistoryReader
from collector.history.recorder import Recorder
from collector.history.ring import History
from collector.history.tier import MINUTES, TENS, Resolution
from collector.sample import BlockIO, Cpu, Interface, Memory, Sample

SECOND = 1_000_000_000
#: A minute's begin, a half hour's and four hours' begin too.
BASE = 1_760_004_000 // 14400 * 14400


def sample(second: float, cpu: float, memory: int = 100 << 20, rx: int = 0, pids: int = 5) -> Sample:
    return Sample(
        round((BASE + second) * SECOND),
        Cpu(cpu, throttled_seconds=cpu / 10),
        Memory(memory, memory // 2),
        (BlockIO("8:0", rx * 3, rx * 4, 0, 0),),
        pids,
        interfaces=(Interface("eth0", rx, 0, 0, 0, rx * 2, 0, 0, 0),),
    )


class Rings:
    """A sampler as the recorder and the reader know one, whose samples are made up."""

    def __init__(self) -> None:
        self.containers: dict[str, tuple[Container, History]] = {}
        self.interval = 1.0
        self.machine = SimpleNamespace(memory=SimpleNamespace(total_bytes=8 << 30))
        self.limit = 0

    def add(self, name: str, *, started: float | None = None) -> History:
        identity = random.Random(name).randbytes(32).hex()
        started_ns = 1 if started is None else round((BASE + started) * SECOND)
        ring = History()
        self.containers[identity] = Container(id=identity, name=name, image="i", started_ns=started_ns), ring
        return ring

    def id(self, name: str) -> str:
        return next(one for one, (container, _) in self.containers.items() if container.name == name)

    def rings(self) -> list[tuple[str, Container | None, History, int]]:
        every = [(one, container, ring, self.limit) for one, (container, ring) in self.containers.items()]
        return [("/", None, History(), 0), *every]


class Recorded:
    """One agent's life after the other over one directory, with a clock of its own."""

    def __init__(self, directory: Path, resolutions: tuple[Resolution, Resolution], max_bytes: int) -> None:
        self.directory = directory
        self.resolutions = resolutions
        self.max_bytes = max_bytes
        self.second = 0.0
        self.sampler = Rings()
        self.containers = Containers()
        self.archive = Archive(directory, max_bytes, resolutions)
        self.start()

    def start(self) -> None:
        self.recorder = Recorder(self.sampler, self.archive, "testhost")  # type: ignore[arg-type]
        self.reader = HistoryReader(
            self.containers,
            self.sampler,  # type: ignore[arg-type]
            self.archive,
            "testhost",
            clock=lambda: round((BASE + self.second) * SECOND),
        )

    def again(self, *, keep_rings: bool = False) -> None:
        """The agent is started again: what was in memory is gone."""
        self.archive.close()
        if not keep_rings:
            for identity, (container, _) in self.sampler.containers.items():
                self.sampler.containers[identity] = container, History()
        self.archive = Archive(self.directory, self.max_bytes, self.resolutions)
        self.start()

    def record(self, second: float, *, unfinished: bool = False) -> None:
        self.second = second
        self.recorder.record(round((BASE + second) * SECOND), unfinished=unfinished)

    def run(self, until: int, make: Callable[[int], None], since: int = 0) -> None:
        """A pass a second, a record every step."""
        for second in range(since, until):
            make(second)
            if second % self.resolutions[0].step == self.resolutions[0].step - 1:
                self.record(second + 1)


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Callable[..., Recorded]]:
    made: list[Recorded] = []

    def make(fine: Resolution = TENS, coarse: Resolution = MINUTES, max_bytes: int = 256 << 20) -> Recorded:
        made.append(Recorded(tmp_path / "history", (fine, coarse), max_bytes))
        return made[-1]

    yield make
    for one in made:
        one.archive.close()
