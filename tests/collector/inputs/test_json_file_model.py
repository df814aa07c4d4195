"""Whatever happens to a log, in whatever order: each line is stored once, or its loss is counted and marked."""

from __future__ import annotations

import bisect
import gzip
import itertools
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from collector.inputs.json_file import JsonFileTail
from collector.inputs.losses import TailCounters
from collector.sink import Source
from logdrivers.block import Block, Encoding
from logdrivers.codecs import json_file as codec

SOURCE = Source("c" * 64, "web", "busybox", "host", "json-file")
KEEP = 3


def record(number: int, size: int) -> bytes:
    time = codec.format_time(1_795_203_812_000_000_000 + number * 1_000_000)
    return b'{"log":"%d %s\\n","stream":"stdout","time":"%s"}\n' % (number, b"x" * size, time)


class Intake:
    """Blocks and checkpoints in memory; refuses when told to."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.markers: set[int] = set()  # how many numbers there were before each
        self.bytes = 0
        self.checkpoints: dict[str, bytes] = {}
        self.full = False

    def append(self, source: Source, block: Block, checkpoint: tuple[str, bytes] | None = None) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        if block.encoding is Encoding.LINES:
            assert block.data.startswith(b"taffrail: ")
            self.markers.add(len(self.numbers))
            if checkpoint is not None:
                self.checkpoints[checkpoint[0]] = checkpoint[1]
            return
        records = codec.decode(block.data)
        assert len(records) == block.lines
        self.numbers += [int(r.log.split()[0]) for r in records]
        self.bytes += len(block.data)
        assert checkpoint is not None
        self.checkpoints[checkpoint[0]] = checkpoint[1]

    def checkpoint(self, key: str) -> bytes | None:
        return self.checkpoints.get(key)


class Tailing(RuleBasedStateMachine):
    """The writer's side, with what it destroyed, against one tail after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(dir="/tmp"))
        self.path = self.directory / "c-json.log"
        self.path.touch()
        self.intake = Intake()
        self.written = 0
        self.torn = 0  # bytes of an unfinished record at the end of the current file
        self.destroyed: set[int] = set()  # numbers that may have been removed unread
        self.rotated_away: set[int] = set()  # those of them whose loss a tail can notice
        self.counters = TailCounters()  # of closed tails
        self.tail = self.make()

    def make(self) -> JsonFileTail:
        return JsonFileTail(self.path, "k", SOURCE, self.intake, block_bytes=512)

    def teardown(self) -> None:
        self.tail.close()
        shutil.rmtree(self.directory)

    def numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def contents(self, path: Path) -> set[int]:
        """Numbers of the records in a file."""
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = data.split(b"\n")[:-1]
        return {int(line.split(b'{"log":"')[-1].split()[0]) for line in lines if line.endswith(b"}")}

    def destroy(self, path: Path) -> None:
        self.destroyed |= self.contents(path) - set(self.intake.numbers)

    # --- the writer ---
    #
    # A file deleted or truncated while nobody reads it leaves no trace: that loss cannot be noticed.

    @rule(count=st.integers(1, 20), size=st.sampled_from([0, 10, 100, 700]))
    def write(self, count: int, size: int) -> None:
        with self.path.open("ab") as file:
            file.write(b"".join(record(self.written + i, size) for i in range(count)))
        self.written += count
        self.torn = 0

    @rule(cut=st.integers(1, 40))
    @precondition(lambda self: self.torn == 0)
    def tear(self, cut: int) -> None:
        """A record whose writer died; what is written next stands behind it."""
        with self.path.open("ab") as file:
            file.write(record(10**9, 0)[:cut])
        self.torn = cut

    @rule(compress=st.booleans())
    def rotate(self, compress: bool) -> None:
        for number in range(KEEP - 1, 0, -1):
            for old in (self.numbered(number), self.numbered(number).with_suffix(f".{number}.gz")):
                if not old.exists():
                    continue
                if number == KEEP - 1:
                    self.destroy(old)
                    if self.intake.checkpoints:
                        self.rotated_away |= self.contents(old)
                    old.unlink()
                else:
                    suffix = ".gz" if old.suffix == ".gz" else ""
                    old.rename(f"{self.numbered(number + 1)}{suffix}")
        self.path.rename(self.numbered(1))
        self.path.touch()
        self.torn = 0
        if compress:
            plain = self.numbered(1)
            Path(f"{plain}.gz").write_bytes(gzip.compress(plain.read_bytes()))
            plain.unlink()

    @rule()
    def truncate(self) -> None:
        self.destroy(self.path)
        self.path.write_bytes(b"")
        self.torn = 0

    @rule()
    def delete(self) -> None:
        self.destroy(self.path)
        self.path.unlink()
        self.path.touch()
        self.torn = 0

    # --- the tail ---

    @rule(turns=st.integers(1, 6), full=st.booleans())
    def read(self, turns: int, full: bool) -> None:
        self.intake.full = full
        for _ in range(turns):
            try:
                if not self.tail.turn():
                    break
            except OSError:
                break
        self.intake.full = False

    @rule()
    def restart(self) -> None:
        self.tail.close()
        self.counters.add(self.tail.counters)
        self.tail = self.make()

    @rule()
    def read_to_the_end(self) -> None:
        for _ in range(10_000):
            if not self.tail.turn():
                break
        else:
            raise AssertionError("the tail does not come to an end")
        stored = set(self.intake.numbers)
        missing = set(range(self.written)) - stored
        assert missing <= self.destroyed
        for number in missing & self.rotated_away:
            assert bisect.bisect(self.intake.numbers, number) in self.intake.markers
        if missing & self.rotated_away:
            total = TailCounters()
            total.add(self.counters)
            total.add(self.tail.counters)
            assert total.unverified_rotations + total.truncations > 0
        assert self.tail.lag_bytes() == self.torn

    @invariant()
    def in_order_and_once(self) -> None:
        numbers = self.intake.numbers
        assert all(a < b for a, b in itertools.pairwise(numbers))
        total = TailCounters()
        total.add(self.counters)
        total.add(self.tail.counters)
        assert total.lines == len(numbers)
        assert total.bytes == self.intake.bytes


TestTailing = Tailing.TestCase
TestTailing.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
