"""Lines, partial pieces, and exactly once through a kill at any step, on a journal in memory."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logdrivers.block import MAX_LINE, Block, Stream
from logdrivers.journal import Mark, Position, Resume
from logdrivers.source.copier import Copier, Splitter
from logdrivers.source.ledger import Ledger, OpenLine
from logdrivers.source.spool import Spool

OUT, ERR = Stream.STDOUT, Stream.STDERR


class Killed(BaseException):
    """Stands for kill -9 at this very point."""


class MemoryJournal:
    """Keeps records one by one, as json-file does, so that a kill can leave part of a block."""

    def __init__(self) -> None:
        self.records: list[tuple[Stream, int, bytes, object]] = []
        self.marked = 0  # records that the mark covers
        self.mark = Mark(0, 0)
        self.kill_after: int | None = None  # so many more records, then killed
        self.kill_successor_after: int | None = None  # the same for whoever opens it next
        self.refuse_after: int | None = None  # so many more records, then no space

    def resume(self) -> Resume:
        self.kill_after, self.kill_successor_after = self.kill_successor_after, None
        self.refuse_after = None
        return Resume(self.mark, len(self.records) - self.marked)

    def give_up(self, mark: Mark) -> None:
        self.mark, self.marked = mark, len(self.records)

    def append(self, block: Block, mark: Mark) -> Position:
        assert block.partial or block.data.count(b"\n") == block.lines > 0
        texts = [block.data] if block.partial else block.data.splitlines(keepends=True)
        for text in texts:
            self._record(block, text)
        if self.kill_after is not None:
            self.kill_after = None
            raise Killed
        self.mark, self.marked = mark, len(self.records)
        return Position(1, len(self.records))

    def _record(self, block: Block, text: bytes) -> None:
        if self.kill_after == 0:
            raise Killed
        if self.refuse_after == 0:
            raise OSError(28, "No space left on device")
        if self.kill_after is not None:
            self.kill_after -= 1
        if self.refuse_after is not None:
            self.refuse_after -= 1
        self.records.append((block.stream, block.first_ns, text, block.partial))

    def written(self) -> tuple[int, int]:
        return len(self.records), sum(len(text) for _, _, text, _ in self.records)

    def end(self) -> Position:
        return Position(1, len(self.records))

    def close(self) -> None:
        pass

    def text(self, stream: Stream) -> bytes:
        parts = []
        for of, _, text, partial in self.records:
            if of is stream:
                parts.append(text + (b"\n" if partial is not None and partial.last else b""))
        return b"".join(parts)


def copier(directory: Path, journal: MemoryJournal) -> Copier:
    return Copier(
        "c" * 64,
        lambda: journal,
        lambda stream, base: Spool(directory / stream.text, base),
        Ledger(directory / "ledger"),
    )


def split(data: bytes, *, eof: bool = False, at: int = 0, line: OpenLine | None = None) -> list[Block]:
    return [piece.block for piece in Splitter("c" * 64, OUT).split(data, at, 1000, line, eof)]


def shape(blocks: list[Block]) -> list[tuple[int, int | None, bool]]:
    return [
        (len(b.data), b.partial and b.partial.ordinal, bool(b.partial and b.partial.last)) for b in blocks
    ]


def test_all_complete_lines_of_a_read_are_one_block():
    (block,) = split(b"one\ntwo\r\n\nthr")
    assert (block.data, block.lines, block.partial) == (b"one\ntwo\r\n\n", 3, None)
    assert (block.first_ns, block.last_ns, block.stream) == (1000, 1000, OUT)


def test_a_line_just_below_the_limit_is_a_line():
    (block,) = split(b"x" * (MAX_LINE - 1) + b"\n")
    assert block.partial is None


def test_a_line_of_exactly_the_limit_is_a_full_piece_and_an_empty_last_one():
    assert shape(split(b"x" * MAX_LINE + b"\n")) == [(MAX_LINE, 1, False), (0, 2, True)]


def test_a_long_line_between_short_ones_goes_out_in_pieces_with_one_id():
    blocks = split(b"a\nb\n" + b"x" * (2 * MAX_LINE + 7) + b"\nc\nd\n")
    assert shape(blocks) == [
        (4, None, False),
        (MAX_LINE, 1, False),
        (MAX_LINE, 2, False),
        (7, 3, True),
        (4, None, False),
    ]
    ids = {b.partial.id for b in blocks if b.partial}
    assert len(ids) == 1
    assert len(ids.pop()) == 64


def test_what_a_stream_ends_with_is_a_piece_that_is_not_last():
    assert shape(split(b"one\ntwo", eof=True)) == [(4, None, False), (3, 1, False)]
    assert shape(split(b"x" * MAX_LINE, eof=True)) == [(MAX_LINE, 1, False)]
    assert split(b"", eof=True) == []


def test_pieces_share_the_time_of_the_first(tmp_path: Path):
    journal = MemoryJournal()
    copy = copier(tmp_path, journal)
    write(copy, OUT, b"x" * MAX_LINE)
    copy.pump(OUT, 111)
    write(copy, OUT, b"y" * MAX_LINE + b"z\nnext\n")
    copy.pump(OUT, 222)
    assert [time for _, time, _, _ in journal.records] == [111, 111, 111, 222]


@pytest.mark.parametrize("position", [0, 1, 63, 64, 65, 10_000])
def test_a_long_line_is_found_wherever_it_is(position: int):
    short = b"0123456789" * 9 + b"\n"
    data = short * position + b"x" * 20_000 + b"\n" + short * 70
    texts = split(data)
    assert sum(len(b.data) for b in texts) + 1 == len(data)
    assert [len(b.data) for b in texts if b.partial] == [MAX_LINE, 20_000 - MAX_LINE]


def docker_pieces(data: bytes) -> list[bytes]:
    """Docker's copier, line by line, as its contract says it."""
    pieces = []
    for line in data.split(b"\n")[:-1]:
        while len(line) >= MAX_LINE:
            pieces.append(line[:MAX_LINE])
            line = line[MAX_LINE:]
        pieces.append(line)
    rest = data.rpartition(b"\n")[2]
    return pieces + [rest[i : i + MAX_LINE] for i in range(0, len(rest), MAX_LINE)]


LENGTHS = st.one_of(
    st.integers(0, 60),
    st.sampled_from([MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, 2 * MAX_LINE, 2 * MAX_LINE + 5]),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(LENGTHS, max_size=12), st.integers(0, 100), st.randoms(use_true_random=False))
def test_reads_of_any_size_give_dockers_pieces(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], tail: int, chance: random.Random
):
    data = b"".join(bytes([97 + i]) * n + b"\n" for i, n in enumerate(lengths)) + b"t" * tail
    journal = MemoryJournal()
    copy = copier(tmp_path_factory.mktemp("copier"), journal)
    here = 0
    while here < len(data):
        size = chance.choice([1, 100, MAX_LINE - 1, MAX_LINE, 50_000])
        write(copy, OUT, data[here : here + size])
        copy.pump(OUT, here)
        here += size
    copy.pump(OUT, here, eof=True)
    assert [text.removesuffix(b"\n") for _, _, text, _ in journal.records] == docker_pieces(data)
    copy.close()


def write(copy: Copier, stream: Stream, data: bytes) -> None:
    """Through a real pipe into the spool."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    for start in range(0, len(data), 4096):
        os.write(write_fd, data[start : start + 4096])
        while copy.spools[stream].fill(read_fd, 1 << 20):
            pass
    os.close(write_fd)
    os.close(read_fd)


@settings(deadline=None, max_examples=80)
@given(st.randoms(use_true_random=False))
def test_a_kill_at_any_record_loses_and_doubles_nothing(
    tmp_path_factory: pytest.TempPathFactory, chance: random.Random
):
    directory = tmp_path_factory.mktemp("copier")
    journal = MemoryJournal()
    copy = copier(directory, journal)
    sent = {OUT: b"", ERR: b""}
    for step in range(30):
        stream = chance.choice([OUT, ERR])
        lengths = [
            chance.choice([0, 5, 90, MAX_LINE - 1, MAX_LINE, 40_000]) for _ in range(chance.randint(0, 4))
        ]
        data = b"".join(b"%d" % step * (n // 2) + b"\n" for n in lengths) + b"r" * chance.choice(
            [0, 9, 20_000]
        )
        sent[stream] += data
        write(copy, stream, data)
        while True:
            if chance.random() < 0.4:
                journal.kill_after = chance.randint(0, 4)
            try:
                copy.pump(stream, step)
                copy.release()
                break
            except Killed:
                journal.kill_successor_after = chance.choice([None, None, 0, 1, 2])
                copy = again(copy, directory, journal)
    journal.kill_after = None
    for stream in (OUT, ERR):
        copy.pump(stream, 99, eof=True)
        assert journal.text(stream) == sent[stream]
    assert journal.marked == len(journal.records)
    copy.close()


def again(copy: Copier, directory: Path, journal: MemoryJournal) -> Copier:
    """A successor; the kernel closes a killed process's files."""
    copy.close()
    while True:
        try:
            return copier(directory, journal)
        except Killed:
            continue


def test_a_journal_that_refuses_in_the_middle_of_a_block_goes_on_there(tmp_path: Path):
    journal = MemoryJournal()
    copy = copier(tmp_path, journal)
    write(copy, OUT, b"one\ntwo\nthree\n")
    journal.refuse_after = 2
    with pytest.raises(OSError, match="No space"):
        copy.pump(OUT, 1)
    copy.reopen()
    copy.pump(OUT, 2)
    assert journal.text(OUT) == b"one\ntwo\nthree\n"


def test_the_next_life_does_not_continue_a_line_the_last_one_left_open(tmp_path: Path):
    journal = MemoryJournal()
    copy = copier(tmp_path, journal)
    write(copy, OUT, b"x" * MAX_LINE + b"tail")
    copy.pump(OUT, 1)
    copy = again(copy, tmp_path, journal)
    copy.begin_life(2)
    write(copy, OUT, b"fresh\n")
    copy.pump(OUT, 3)
    assert [(text[:5], partial and partial.ordinal) for _, _, text, partial in journal.records] == [
        (b"xxxxx", 1),
        (b"tail", 2),
        (b"fresh", None),
    ]


def test_appended_blocks_are_announced_with_the_line_they_begin_at(tmp_path: Path):
    copy = copier(tmp_path, MemoryJournal())
    seen: list[tuple[int, int]] = []
    copy.on_append = lambda entry: seen.append((entry.first_line, entry.block.lines))
    for text in (b"a\nb\n", b"c\n"):
        write(copy, OUT, text)
        copy.pump(OUT, 1)
    assert seen == [(0, 2), (2, 1)]


def test_a_spool_gives_back_what_the_journal_has(tmp_path: Path):
    copy = copier(tmp_path, MemoryJournal())
    write(copy, OUT, b"0123456789abcde\n" * (1 << 16))
    copy.pump(OUT, 1)
    copy.release()
    status = (tmp_path / "stdout").stat()
    assert status.st_size == 1 << 20
    assert status.st_blocks * 512 <= 8192


def test_a_new_spool_begins_where_the_journal_is(tmp_path: Path):
    spool = Spool(tmp_path / "stdout", 5_000_000)
    assert spool.end == 5_000_000
    assert (tmp_path / "stdout").stat().st_blocks == 0
    with pytest.raises(OSError, match="holds 0 of the 10 bytes"):
        spool.read(5_000_000, 5_000_010)
