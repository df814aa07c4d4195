from __future__ import annotations

import gzip
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collector.inputs.json_file import JsonFileTail
from collector.sink import Source
from logdrivers.codecs import json_file as codec
from tests.collector.conftest import eventually

SOURCE = Source("c" * 64, "web", "busybox", "host", "json-file")
T0 = 1_795_203_812_000_000_000


def record(number: int, text: str = "line") -> bytes:
    time = codec.format_time(T0 + number * 1_000_003)
    return b'{"log":"%s %d\\n","stream":"stdout","time":"%s"}\n' % (text.encode(), number, time)


def records(first: int, last: int, text: str = "line") -> bytes:
    return b"".join(record(number, text) for number in range(first, last))


def messages(first: int, last: int, text: str = "line") -> list[bytes]:
    return [b"%s %d" % (text.encode(), number) for number in range(first, last)]


def renewed(path: Path) -> int:
    """The time a file gets that is made now beside it."""
    probe = path.with_name("probe")
    probe.unlink(missing_ok=True)
    probe.touch()
    return probe.stat().st_ctime_ns


def drain(tail: JsonFileTail) -> None:
    for _ in range(10_000):
        if not tail.turn():
            return
    raise AssertionError("the tail does not come to an end")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c-json.log"


@pytest.fixture
def make(path: Path, intake: Any) -> Callable[[], JsonFileTail]:
    return lambda: JsonFileTail(path, "json-file:c", SOURCE, intake, block_bytes=4096)


@pytest.fixture
def tail(make: Callable[[], JsonFileTail]) -> JsonFileTail:
    return make()


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def rotate(path: Path, keep: int, compress: bool = False) -> None:
    """As Docker does it: shift the numbers, the current file becomes .1."""

    def name(number: int) -> Path:
        return path.with_name(f"{path.name}.{number}") if number else path

    for number in range(keep - 1, 0, -1):
        for suffix in ("", ".gz"):
            old, new = name(number - 1), name(number)
            source = old.with_name(old.name + suffix)
            if not source.exists():
                continue
            for other in ("", ".gz"):
                new.with_name(new.name + other).unlink(missing_ok=True)
            source.rename(new.with_name(new.name + suffix))
    if keep == 1:
        path.unlink()
    elif compress:
        plain = name(1)
        plain.with_name(plain.name + ".gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    path.touch()


def test_blocks_are_the_bytes_of_the_file(path, tail, intake):
    append(path, records(0, 500))
    drain(tail)
    assert b"".join(block.data for _, block in intake.blocks) == path.read_bytes()
    assert len(intake.blocks) > 5
    assert sum(block.lines for _, block in intake.blocks) == 500
    first, last = intake.blocks[0][1], intake.blocks[-1][1]
    assert (first.first_ns, last.last_ns) == (T0, T0 + 499 * 1_000_003)


def test_missing_log_is_waited_for(path, tail, intake):
    assert not tail.turn()
    append(path, record(1))
    drain(tail)
    assert intake.messages() == [b"line 1"]


def test_unfinished_record_waits(path, tail, intake):
    whole = record(1)
    for cut in range(1, len(whole)):
        append(path, whole[:cut])
        drain(tail)
        assert not intake.blocks
        path.write_bytes(b"")
    append(path, record(0) + whole[:40])
    drain(tail)
    append(path, whole[40:])
    drain(tail)
    assert intake.messages() == messages(0, 2)
    assert not tail.counters.lost_bytes


def test_resumes_behind_the_last_stored_block(path, make, intake):
    append(path, records(0, 300))
    first = make()
    first.turn()
    first.turn()
    first.close()
    append(path, records(300, 400))
    drain(make())
    assert intake.messages() == messages(0, 400)


def test_failed_store_is_tried_again(path, tail, intake):
    append(path, records(0, 100))
    intake.fail = 2
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            tail.turn()
    drain(tail)
    assert intake.messages() == messages(0, 100)


@pytest.fixture
def at_leisure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is so busy that between a file's removal and the next one's birth much time may go by."""
    monkeypatch.setattr("collector.inputs.log_files._AT_ONCE_NS", 3600 * 10**9)


@pytest.mark.usefixtures("at_leisure")
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("restart", [False, True])
def test_follows_rotation_behind(path, make, intake, compress, restart):
    tail = make()
    append(path, records(0, 200))
    tail.turn()
    for generation in range(1, 4):
        rotate(path, 6, compress)
        append(path, records(200 * generation, 200 * (generation + 1)))
        if restart:
            tail.close()
            tail = make()
    drain(tail)
    assert intake.messages() == messages(0, 800)
    assert tail.counters.unverified_rotations == 0
    assert tail.counters.rotations >= 1


@pytest.mark.usefixtures("at_leisure")
def test_keeps_removed_generations_open(path, tail, intake):
    append(path, records(0, 200))
    tail.turn()
    for generation in range(1, 10):
        rotate(path, 2)
        append(path, records(200 * generation, 200 * (generation + 1)))
        tail.turn()
    assert len(intake.messages()) < 1000
    drain(tail)
    assert intake.messages() == messages(0, 2000)
    assert tail.counters.rotations == 9
    assert tail.counters.unverified_rotations == 0


@pytest.mark.usefixtures("at_leisure")
def test_single_file_that_is_unlinked_at_rotation(path, tail, intake):
    append(path, records(0, 200))
    tail.turn()
    rotate(path, 1)
    append(path, records(200, 300))
    drain(tail)
    assert intake.messages() == messages(0, 300)
    assert tail.counters.unverified_rotations == 0


def test_a_file_missing_between_two_rotations_is_marked_in_its_place(path, make, intake):
    """Only the times of the files tell one rotation from two."""
    append(path, records(0, 200))
    tail = make()
    tail.turn()
    rotate(path, 1)
    append(path, records(200, 300))
    eventually(lambda: renewed(path) > path.stat().st_ctime_ns + 50_000_000)
    rotate(path, 1)
    append(path, records(300, 310))
    drain(tail)
    marker = b"taffrail: output may be missing here: the log was rotated past the file read last"
    assert intake.stored() == [*messages(0, 200), marker, *messages(300, 310)]
    assert tail.counters.unverified_rotations == 1
    assert tail.counters.losses == {"rotated": 1}
    assert not tail.counters.lost_lines
    tail.close()
    drain(make())
    assert intake.stored().count(marker) == 1


def test_rotations_that_overtook_a_tail_are_marked_in_their_place(path, tail, intake):
    append(path, records(0, 200))
    tail.turn()
    for generation in range(1, 4):
        eventually(lambda: renewed(path) > path.stat().st_ctime_ns + 5_000_000)
        rotate(path, 2)
        append(path, records(200 * generation, 200 * (generation + 1)))
    drain(tail)
    stored = intake.stored()
    assert stored[:200] == messages(0, 200)
    assert stored[200].startswith(b"taffrail: output may be missing here: the log was rotated")
    assert stored[201:] == messages(400, 800)


def test_rotated_away_while_nobody_read(path, make, intake):
    append(path, records(0, 100))
    tail = make()
    drain(tail)
    tail.close()
    for generation in range(1, 5):
        rotate(path, 3)
        append(path, records(100 * generation, 100 * (generation + 1)))
    tail = make()
    drain(tail)
    assert intake.messages() == messages(0, 100) + messages(200, 500)
    assert intake.stored()[100].startswith(b"taffrail: output may be missing here: the log was rotated")
    assert len(intake.stored()) == 401
    assert tail.counters.unverified_rotations == 1


def test_reused_inode_is_not_taken_for_the_file_read_before(path, make, intake):
    append(path, records(0, 100))
    tail = make()
    drain(tail)
    tail.close()
    inode = path.stat().st_ino
    checkpoint = intake.checkpoints["json-file:c"]
    path.unlink()
    append(path, records(1000, 1200))
    intake.checkpoints["json-file:c"] = checkpoint.replace(b"%d" % inode, b"%d" % path.stat().st_ino)
    drain(make())
    assert intake.messages() == messages(0, 100) + messages(1000, 1200)


def test_truncated_in_place(path, tail, intake):
    append(path, records(0, 100))
    drain(tail)
    path.write_bytes(b"")
    append(path, records(100, 120))
    drain(tail)
    append(path, records(120, 300))
    drain(tail)
    assert intake.messages() == messages(0, 300)
    assert intake.stored()[100] == b"taffrail: output may be missing here: the log was truncated"
    assert tail.counters.truncations == 1
    assert tail.counters.losses == {"truncated": 1}


def test_bytes_known_to_be_unread_when_a_log_is_truncated_are_counted(path, make, intake):
    append(path, records(0, 200))
    tail = make()
    tail.turn()
    unread = path.stat().st_size - tail.counters.bytes
    stored = len(intake.stored())
    path.write_bytes(b"")
    append(path, records(300, 310))
    drain(tail)
    marker = b"taffrail: %d bytes or more dropped here: the log was truncated" % unread
    assert intake.stored() == [*messages(0, stored), marker, *messages(300, 310)]
    assert tail.counters.lost_bytes == {"truncated": unread}
    tail.close()
    drain(make())
    assert len(intake.stored()) == stored + 11


def test_a_marker_the_store_refuses_is_tried_again(path, tail, intake):
    append(path, records(0, 10))
    drain(tail)
    path.write_bytes(b"")
    append(path, records(10, 20))
    assert tail.turn(), "truncated"
    intake.fail = 2
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            tail.turn()
    drain(tail)
    assert intake.messages() == messages(0, 20)
    assert len(intake.stored()) == 21
    assert tail.counters.losses == {"truncated": 1}


def test_truncated_and_grown_past_the_offset_before_the_next_look(path, tail, intake):
    append(path, records(0, 100))
    drain(tail)
    path.write_bytes(records(100, 400))
    drain(tail)
    assert intake.messages() == messages(0, 400)


def test_truncation_with_older_generations_does_not_repeat_them(path, make, intake):
    append(path, records(0, 50))
    rotate(path, 3)
    append(path, records(50, 100))
    tail = make()
    drain(tail)
    tail.close()
    path.write_bytes(records(100, 110))
    drain(make())
    assert intake.messages() == messages(0, 110)


@pytest.mark.parametrize("restart", [False, True])
def test_copytruncate_reads_the_copy_to_its_end(path, make, intake, restart):
    append(path, records(0, 100))
    tail = make()
    tail.turn()
    copy = path.with_name(path.name + ".1")
    copy.write_bytes(path.read_bytes())
    path.write_bytes(records(100, 150))
    if restart:
        tail.close()
        tail = make()
    drain(tail)
    assert intake.messages() == messages(0, 150)


def test_zeros_and_torn_records_after_a_crash_are_skipped_and_counted(path, tail, intake, caplog):
    caplog.set_level(logging.CRITICAL)
    torn = record(3)[:30]
    data = record(1) + b"\0" * 4096 + record(2) + torn + record(4) + b"garbage\n" + record(5)
    append(path, data)
    drain(tail)
    assert intake.messages() == [b"line 1", b"line 2", b"line 4", b"line 5"]
    assert (
        intake.stored()[-1] == b"taffrail: 3 lines dropped here: bytes that are no record of the log's format"
    )
    assert tail.counters.lost_lines == {"invalid": 3}
    assert tail.counters.lost_bytes == {"invalid": 4096 + len(torn) + len(b"garbage\n")}
    assert tail.counters.bytes + sum(tail.counters.lost_bytes.values()) == len(data)


def test_torn_end_of_a_rotated_file_is_counted(path, tail, intake):
    append(path, record(1) + record(2)[:20])
    drain(tail)
    rotate(path, 2)
    append(path, record(3))
    drain(tail)
    assert intake.messages() == [b"line 1", b"line 3"]
    assert tail.counters.lost_lines == {"torn": 1}


def test_record_longer_than_a_block(path, tail, intake):
    append(path, record(1) + record(2, "x" * 100_000) + record(3))
    drain(tail)
    assert [len(m) for m in intake.messages()] == [6, 100_002, 6]


def test_attributes_are_no_damage(path, tail, intake):
    data = (
        b'{"log":"a\\n","stream":"stdout","attrs":{"log":"{\\"x","tag":"t"},"time":"2026-11-20T19:43:32Z"}\n'
    )
    append(path, data * 3 + record(1))
    drain(tail)
    assert b"".join(block.data for _, block in intake.blocks) == data * 3 + record(1)
    assert not tail.counters.lost_lines


def test_damaged_gzip_ends_at_its_last_sound_byte(path, make, intake):
    append(path, records(0, 100))
    tail = make()
    tail.turn()
    tail.close()
    append(path, records(100, 20_000))
    rotate(path, 3, compress=True)
    packed = path.with_name(path.name + ".1.gz")
    packed.write_bytes(packed.read_bytes()[:-2000])
    append(path, record(20_000))
    tail = make()
    drain(tail)
    found = intake.messages()
    assert found[-1] == b"line 20000"
    assert found[:-1] == messages(0, len(found) - 1)
    assert tail.counters.losses == {"damaged": 1}
    marker = intake.stored()[-2]
    assert marker.startswith(b"taffrail: ")
    assert marker.endswith(b" dropped here: a compressed file of the log is damaged")


def test_checkpoint_that_is_none_is_refused(path, make, intake, caplog):
    intake.checkpoints["json-file:c"] = b"{}"
    append(path, record(1))
    drain(make())
    assert intake.messages() == [b"line 1"]
    assert "not a json-file checkpoint" in caplog.text


def test_unread_bytes_of_a_removed_log_are_counted(path, tail, intake):
    append(path, records(0, 100))
    tail.turn()
    unread = path.stat().st_size - tail.counters.bytes
    tail.close(removed=True)
    assert tail.counters.lost_bytes == {"removed": unread}
    marker = b"taffrail: %d bytes or more dropped here: the log was removed before it was read" % unread
    assert intake.stored()[-1] == marker
