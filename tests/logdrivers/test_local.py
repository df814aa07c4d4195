"""The local journal: Docker's records, and exactly once through kills, torn records, full disks and rotation."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs import json_file
from logdrivers.codecs.local import LocalEncoder, LocalRecords, decode
from logdrivers.driver import Info, OptionError
from logdrivers.journal import JournalReader, Mark
from logdrivers.local import LocalDriver, local_log_path

NS = 1_795_203_812_003_026_720
DRIVER = LocalDriver()
RECORDS = LocalRecords()


def info_for(directory: Path, **options: str) -> Info:
    return Info(
        "c0ffee" + "0" * 58, "/web", "sha256:1", "busybox:1", ("sh",), NS, directory,
        {key.replace("_", "-"): value for key, value in options.items()}, {"l1": "a"}, {"E1": "x"},
    )  # fmt: skip


def block_of(*lines: bytes, stream: Stream = Stream.STDOUT, time_ns: int = NS) -> Block:
    return Block(
        b"".join(line + b"\n" for line in lines), Encoding.LINES, stream, time_ns, time_ns, len(lines)
    )


def text_in(reader: JournalReader) -> bytes:
    out = []
    position = reader.first()
    while entries := reader.read(position).entries:
        out += [entry.block.data for entry in entries]
        position = entries[-1].end
    reader.close()
    return b"".join(out)


def test_records_are_dockers() -> None:
    """As Docker Engine 20.10.24 wrote them."""
    encoder = LocalEncoder()
    assert encoder.encode(block_of(b"hello", time_ns=1795223603220399871)) == bytes.fromhex(
        "00000019 0a067374646f7574 10ff8de5d2b0cbfaf418 1a0568656c6c6f 00000019"
    )
    assert encoder.encode(block_of(b"", time_ns=1795223603220941155)) == bytes.fromhex(
        "00000012 0a067374646f7574 10e39286d3b0cbfaf418 00000012"
    )
    mark = "f7c136299a14f1a1e31d558171f1541efff651ba7a03c28bdb62efc430beee1d"
    piece = Block(
        b"y",
        Encoding.LINES,
        Stream.STDOUT,
        1795223603227194282,
        1795223603227194282,
        1,
        Partial(mark, 2, True),
    )
    assert encoder.encode(piece) == bytes.fromhex(
        "0000005f 0a067374646f7574 10aae783d6b0cbfaf418 1a0179 2001 2a46 0801 1240"
        f"{mark.encode().hex()} 1802 0000005f"
    )


def test_attributes_stand_behind_the_line() -> None:
    data = LocalEncoder({"b": "2", "a": ""}).encode(block_of(b"x"))
    assert data[:-4].endswith(b"\x1a\x01x\x32\x03\x0a\x01a\x32\x06\x0a\x01b\x12\x012")
    assert [record.line for record in decode(data)] == [b"x"]


@given(
    st.lists(
        st.tuples(
            st.lists(st.binary(max_size=300).map(lambda b: b.replace(b"\n", b"")), min_size=1, max_size=8),
            st.sampled_from([Stream.STDOUT, Stream.STDERR]),
            st.integers(0, 2**63 - 1),
        ),
        max_size=6,
    ),
    st.integers(0, 2000),
)
def test_what_is_encoded_is_decoded(groups: list[tuple[list[bytes], Stream, int]], cut: int) -> None:
    encoder = LocalEncoder()
    data = b"".join(encoder.encode(block_of(*lines, stream=s, time_ns=t)) for lines, s, t in groups)
    expected = [(line, s, t) for lines, s, t in groups for line in lines]
    assert [(r.line, r.stream, r.time_ns) for r in decode(data)] == expected
    assert RECORDS.count(data) == len(expected)
    assert RECORDS.whole(data) == len(data)
    assert RECORDS.source_bytes(data) == sum(len(line) + 1 for line, _, _ in expected)
    blocks = list(RECORDS.blocks(data))
    assert sum(size for size, _ in blocks) == len(data)
    assert b"".join(block.data for _, block in blocks) == b"".join(line + b"\n" for line, _, _ in expected)
    torn = data[:cut]
    whole = RECORDS.whole(torn)
    assert [(r.line, r.stream, r.time_ns) for r in decode(torn)] == expected[: RECORDS.count(data[:whole])]


@given(st.binary(max_size=80))
def test_a_record_of_anything_holds_nobody_up(body: bytes) -> None:
    good = LocalEncoder().encode(block_of(b"good"))
    size = len(body).to_bytes(4, "big")
    data = good + size + body + size + good
    found = list(decode(data))
    assert len(found) == 3
    assert found[0].line == found[2].line == b"good"
    blocks = [block for _, block in RECORDS.blocks(data)]
    assert all(block.partial or block.data.count(b"\n") == block.lines for block in blocks)


def test_json_file_records_become_local_ones() -> None:
    blocks = [block_of(b"a", b"b"), block_of(b"e", stream=Stream.STDERR, time_ns=NS + 1)]
    data = b"".join(json_file.Encoder().encode(block) for block in blocks)
    records = Block(data, Encoding.JSON_FILE, Stream.MIXED, NS, NS + 1, 3)
    assert LocalEncoder().encode(records) == b"".join(LocalEncoder().encode(block) for block in blocks)


@pytest.mark.parametrize("wrong", [b"a\nb", b"a\n"])
def test_a_block_that_is_not_what_it_says_is_refused(wrong: bytes) -> None:
    with pytest.raises(ValueError, match="block of 2 lines"):
        LocalEncoder().encode(Block(wrong, Encoding.LINES, Stream.STDOUT, NS, NS, 2))


def test_labels_and_tag_are_taken_as_later_engines_take_them(tmp_path: Path) -> None:
    info = info_for(tmp_path, labels="l1", env="E1", tag="{{.Name}}")
    DRIVER.validate(info.options)
    journal = DRIVER.journal(info)
    journal.append(block_of(b"x"), Mark(2, 0))
    journal.close()
    data = local_log_path(tmp_path).read_bytes()
    assert b"\x0a\x02l1\x12\x01a" in data
    assert b"\x0a\x03tag\x12\x03web" in data
    with pytest.raises(OptionError, match=r"no field \.Nome"):
        DRIVER.validate({"tag": "{{.Nome}}"})


@pytest.mark.parametrize("attributes", [{}, {"tag": "t"}])
def test_resuming_after_a_kill_at_every_byte(tmp_path: Path, attributes: dict[str, str]) -> None:
    """The state is that of the first block; of the second any number of bytes are in the file."""
    first, second = block_of(b"one", b"two"), block_of(b"three", b"", b"five", stream=Stream.STDERR)
    start = tmp_path / "start"
    journal = DRIVER.journal(info_for(start, **attributes))
    journal.append(first, Mark(8, 0))
    journal.close()
    state = {path.name: path.read_bytes() for path in (start / "local-logs").iterdir()}
    journal = DRIVER.journal(info_for(start, **attributes))
    journal.append(second, Mark(8, 12))
    journal.close()
    whole = local_log_path(start).read_bytes()
    before = len(state["container.log"])
    for size in range(before, len(whole) + 1):
        directory = tmp_path / str(size)
        shutil.copytree(start, directory)
        for name, data in state.items():
            path = directory / "local-logs" / name
            with path.open("r+b") as file:
                file.write(whole[:size] if name == "container.log" else data)
                file.truncate()
        # A copy has other inodes, which the journal notices and indexes again.
        journal = DRIVER.journal(info_for(directory, **attributes))
        resume = journal.resume()
        assert resume.mark == Mark(8, 0)
        assert resume.records == RECORDS.count(whole[before:size])
        assert resume.source_bytes == (0, 6, 7, 12)[resume.records]
        rest = second.data.split(b"\n")[resume.records : -1]
        if rest:
            journal.append(block_of(*rest, stream=Stream.STDERR), Mark(8, 12))
        journal.close()
        assert local_log_path(directory).read_bytes() == whole
        shutil.rmtree(directory)


def test_a_full_disk_keeps_whole_records_and_goes_on_behind_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = info_for(tmp_path)
    block = block_of(*(b"line %d" % n for n in range(100)))
    whole = LocalEncoder().encode(block)
    real = os.write
    for room in range(0, len(whole), 37):
        shutil.rmtree(tmp_path / "local-logs", ignore_errors=True)
        journal = DRIVER.journal(info)
        log = local_log_path(tmp_path).stat().st_ino
        left = room

        def write(descriptor: int, data: bytes, log: int = log) -> int:
            nonlocal left
            if os.fstat(descriptor).st_ino != log:
                return real(descriptor, data)
            if not left:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = real(descriptor, bytes(data)[:left])
            left -= written
            return written

        monkeypatch.setattr(os, "write", write)
        with pytest.raises(OSError, match="No space"):
            journal.append(block, Mark(len(block.data), 0))
        monkeypatch.setattr(os, "write", real)
        kept = local_log_path(tmp_path).read_bytes()
        assert kept == whole[: RECORDS.whole(whole[:room])]
        journal.append(block, Mark(len(block.data), 0))
        journal.close()
        assert local_log_path(tmp_path).read_bytes() == whole
        assert text_in(DRIVER.reader(info)) == block.data


def test_a_log_of_dockers_is_read_and_gone_on_with(tmp_path: Path) -> None:
    info = info_for(tmp_path, max_size="300", max_file="3")
    path = local_log_path(tmp_path)
    path.parent.mkdir(parents=True)
    encoder = LocalEncoder()
    old = [block_of(b"old %d" % n, time_ns=NS + n) for n in range(20)]
    path.with_name("container.log.1").write_bytes(b"".join(encoder.encode(block) for block in old[:10]))
    path.write_bytes(b"".join(encoder.encode(block) for block in old[10:]) + b"\0\0\0\x30torn")
    assert text_in(DRIVER.reader(info)) == b"".join(block.data for block in old)
    journal = DRIVER.journal(info)
    assert journal.resume().torn_bytes == 8
    assert journal.written()[0] == 20
    journal.append(block_of(b"new", time_ns=NS + 30), Mark(4, 0))
    reader = DRIVER.reader(info)
    assert reader.end_line() == 21
    assert text_in(reader).endswith(b"old 19\nnew\n")
    reader = DRIVER.reader(info)
    assert reader.read(reader.locate(NS + 15)).entries[0].block.data == b"old 15\n"
    reader.close()
    journal.close()
