"""Segments: every block is in or not, through kills, full disks, damage and retention."""

import errno
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.driver import OptionError
from logdrivers.journal import Mark, Position
from logdrivers.journals.segments import DEFAULT_BUDGET, SegmentJournal, SegmentReader, parse_budget

NS = 1_795_203_812_003_026_720
BUDGET = 256 << 10


def block_of(data: bytes, stream: Stream = Stream.STDOUT, time_ns: int = NS) -> Block:
    return Block(data, Encoding.LINES, stream, time_ns, time_ns, data.count(b"\n"))


def numbered(first: int, count: int) -> Block:
    return block_of(b"".join(b"line %d of the container's output\n" % n for n in range(first, first + count)))


def noise(lines: int) -> Block:
    """Lines that do not compress."""
    return block_of(b"".join(os.urandom(100).hex().encode() + b"\n" for _ in range(lines)))


def read_all(reader: SegmentReader, position: Position | None = None) -> tuple[list[Block], int]:
    position = position or reader.first()
    blocks: list[Block] = []
    lost = 0
    while entries := (batch := reader.read(position, 5000)).entries:
        lost += batch.lost_lines
        blocks += [entry.block for entry in entries]
        position = entries[-1].end
    return blocks, lost


def only_segment(directory: Path) -> Path:
    (path,) = (directory / "journal").glob("*.seg")
    return path


blocks = st.builds(
    lambda data, stream, time_ns: block_of(data.replace(b"\n", b"") + b"\n", stream, time_ns),
    st.binary(max_size=600),
    st.sampled_from([Stream.STDOUT, Stream.STDERR]),
    st.integers(0, 2**62),
) | st.builds(
    lambda data, ordinal, last: Block(
        data, Encoding.LINES, Stream.STDERR, NS, NS, 1, Partial("ab" * 32, ordinal, last)
    ),
    st.binary(max_size=600),
    st.integers(1, 2**31),
    st.booleans(),
)


@given(st.lists(blocks, max_size=8))
def test_blocks_come_back_as_they_were(written: list[Block]) -> None:
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        journal = SegmentJournal(directory)
        for number, block in enumerate(written):
            assert journal.append(block, Mark(number + 1, 7)) == journal.end()
        reader = SegmentReader(directory)
        assert read_all(reader) == (written, 0)
        assert reader.end() == journal.end()
        assert reader.end_line() == journal.written()[0] == len(written)
        reader.close()
        journal.close()
    finally:
        shutil.rmtree(directory)


def test_json_file_blocks_keep_their_encoding(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path)
    block = Block(b'{"log":"x"}\n' * 50, Encoding.JSON_FILE, Stream.MIXED, NS, NS + 5, 50)
    journal.append(block, Mark(0, 0))
    journal.close()
    assert read_all(SegmentReader(tmp_path))[0] == [block]


def test_a_kill_at_every_byte_of_an_append_leaves_the_blocks_before(tmp_path: Path) -> None:
    before = tmp_path / "before"
    journal = SegmentJournal(before)
    journal.append(numbered(0, 3), Mark(10, 1))
    start = journal.end().offset
    journal.append(numbered(3, 9), Mark(20, 2))
    end = journal.end().offset
    journal.close()
    whole = only_segment(before).read_bytes()
    for cut in range(start, end):
        directory = tmp_path / "cut"
        shutil.copytree(before, directory)
        only_segment(directory).write_bytes(whole[:cut])
        reader = SegmentReader(directory)
        assert reader.end() == Position(1, start)
        position = reader.read(reader.first()).entries[-1].end
        again = SegmentJournal(directory)
        resume = again.resume()
        assert (resume.mark, resume.records, resume.torn_bytes) == (Mark(10, 1), 0, cut - start)
        again.append(numbered(3, 2), Mark(15, 2))
        assert again.written()[0] == 5
        again.close()
        assert read_all(reader, position) == ([numbered(3, 2)], 0)
        reader.close()
        shutil.rmtree(directory)


def test_a_damaged_byte_costs_its_frame_and_is_counted(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path)
    ends = [journal.append(numbered(n * 10, 10), Mark(n + 1, 0)).offset for n in range(4)]
    journal.close()
    path = only_segment(tmp_path)
    whole = path.read_bytes()
    for at in range(ends[0], ends[1]):
        data = bytearray(whole)
        data[at] ^= 0xFF
        path.write_bytes(data)
        # A writer takes the journal over: what follows the damage stays.
        again = SegmentJournal(tmp_path)
        assert again.resume().mark == Mark(4, 0)
        assert again.written()[0] == 40
        again._begin(2)
        again.close()
        reader = SegmentReader(tmp_path)
        assert read_all(reader) == ([numbered(0, 10), numbered(20, 10), numbered(30, 10)], 10)
        reader.close()
        (tmp_path / "journal" / "00000002.seg").unlink()


def test_retention_takes_whole_oldest_segments_and_readers_count_what_they_miss(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path, BUDGET)
    follower, sleeper = SegmentReader(tmp_path), SegmentReader(tmp_path)
    journal.append(noise(5), Mark(1, 0))
    asleep_at = sleeper.read(sleeper.first()).entries[-1].end
    position, seen = follower.first(), 0
    for number in range(400):
        journal.append(noise(10), Mark(number + 2, 0))
        batch = follower.read(position)
        assert batch.lost_lines == 0
        seen += sum(entry.block.lines for entry in batch.entries)
        position = batch.entries[-1].end
        size = sum(path.stat().st_size for path in (tmp_path / "journal").iterdir())
        assert size <= BUDGET + 4096
    assert seen == journal.written()[0] == 4005
    held, lost = read_all(sleeper, asleep_at)
    assert lost + sum(block.lines for block in held) == 4000
    assert 0 < lost < 4000
    stranger = SegmentReader(tmp_path)
    batch = stranger.read(asleep_at)
    # It cannot know how far into the removed segment the position was: at most that segment too many.
    assert lost <= batch.lost_lines <= lost + 5
    journal.close()


def test_a_position_in_the_middle_of_a_segment_goes_on(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path)
    for number in range(5):
        journal.append(numbered(number, 1), Mark(number, 0))
    first = SegmentReader(tmp_path)
    at = first.read(first.first(), 1).entries[0].end
    second = SegmentReader(tmp_path)
    entries = second.read(at).entries
    assert [entry.first_line for entry in entries] == [1, 2, 3, 4]
    assert second.read(entries[-1].end).entries == []
    journal.close()


def test_frames_larger_than_a_read_come_whole(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path)
    large = noise(20_000)
    journal.append(numbered(0, 1), Mark(0, 0))
    journal.append(large, Mark(1, 0))
    journal.append(numbered(1, 1), Mark(2, 0))
    assert read_all(SegmentReader(tmp_path)) == ([numbered(0, 1), large, numbered(1, 1)], 0)
    journal.close()


def test_a_full_disk_keeps_nothing_of_the_block(small_disk: Path) -> None:
    journal = SegmentJournal(small_disk)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 30_000)
    for done in range(200):
        before = journal.end()
        try:
            journal.append(noise(20), Mark(done + 1, 0))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 the loop is the point
            break
    else:
        raise AssertionError("the disk never filled up")
    assert journal.end() == before
    assert only_segment(small_disk).stat().st_size == before.offset
    ballast.unlink()
    journal.append(noise(20), Mark(done + 1, 0))
    reader = SegmentReader(small_disk)
    assert sum(block.lines for block in read_all(reader)[0]) == (done + 1) * 20
    reader.close()
    journal.close()


def test_a_block_given_up_is_not_asked_for_again(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path)
    journal.append(numbered(0, 1), Mark(5, 5))
    journal.give_up(Mark(9, 5))
    journal.close()
    journal = SegmentJournal(tmp_path)
    assert journal.resume().mark == Mark(9, 5)
    assert journal.written()[0] == 1
    journal.close()


def test_a_segment_without_header_is_removed_and_counted_as_torn(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path)
    journal.append(numbered(0, 1), Mark(5, 5))
    journal.close()
    (tmp_path / "journal" / "00000002.seg").write_bytes(b"\0" * 33)
    journal = SegmentJournal(tmp_path)
    assert (journal.resume().mark, journal.resume().torn_bytes) == (Mark(5, 5), 33)
    journal.close()


def _write_until_killed(directory: Path, started: int) -> None:
    journal = SegmentJournal(directory, 4 << 20)
    number = journal.resume().mark.stdout
    os.write(started, b"x")
    # Not so much that retention would take what the reader has not seen.
    for _ in range(2000):
        size = number % 40 + 1
        journal.append(numbered(number, size), Mark(number + size, 0))
        number += size
    signal.pause()


def test_kill_minus_nine_at_any_point_loses_and_repeats_nothing(tmp_path: Path) -> None:
    reader = SegmentReader(tmp_path)
    position = reader.first()
    seen = b""
    line = 0
    for _ in range(8):
        readable, started = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                _write_until_killed(tmp_path, started)
            finally:
                os._exit(1)
        try:
            assert os.read(readable, 1) == b"x"
            target = line + 300
            while line < target:
                assert os.waitpid(child, os.WNOHANG) == (0, 0)
                batch = reader.read(position)
                assert batch.lost_lines == 0
                for entry in batch.entries:
                    assert entry.first_line == line
                    line += entry.block.lines
                    seen += entry.block.data
                    position = entry.end
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(readable)
            os.close(started)
    journal = SegmentJournal(tmp_path, 4 << 20)
    rest, lost = read_all(reader, position)
    seen += b"".join(block.data for block in rest)
    assert lost == 0
    assert seen == numbered(0, journal.written()[0]).data
    journal.close()


def test_the_budget_is_an_option() -> None:
    assert parse_budget({}) == DEFAULT_BUDGET
    assert parse_budget({"journal-max-size": "16m"}) == 16 << 20
    with pytest.raises(OptionError, match="journal-max-size must be at least 256k: 1k"):
        parse_budget({"journal-max-size": "1k"})
