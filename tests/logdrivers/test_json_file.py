"""The json-file journal: Docker's files to the byte, and exactly once through kills, full disks and rotation."""

import errno
import gzip
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs import json_file as codec
from logdrivers.driver import Info, OptionError
from logdrivers.journal import Mark, Position
from logdrivers.journals.generations import IndexWriter, Sample
from logdrivers.journals.rotated_journal import RotatedJournal
from logdrivers.json_file import JsonFileDriver, log_path

NS = 1_795_203_812_003_026_720
DRIVER = JsonFileDriver()


def info_for(directory: Path, **options: str) -> Info:
    return Info(
        container_id="c0ffee" + "0" * 58,
        container_name="/web",
        image_id="sha256:" + "1" * 64,
        image_name="busybox:1",
        command=("sh",),
        created_ns=NS,
        directory=directory,
        options={key.replace("_", "-"): value for key, value in options.items()},
        labels={"l1": "a<b", "l2": "unasked"},
        env={"E1": "x"},
    )


def block_of(*lines: str, stream: Stream = Stream.STDOUT, time_ns: int = NS) -> Block:
    data = "".join(line + "\n" for line in lines).encode()
    return Block(data, Encoding.LINES, stream, time_ns, time_ns, len(lines))


def numbered(first: int, count: int) -> Block:
    return block_of(*(f"line {n} of the container's output" for n in range(first, first + count)))


def logs_of(path: Path) -> list[str]:
    return [json.loads(line)["log"] for line in path.read_bytes().splitlines()]


def all_logs(info: Info) -> list[str]:
    """What is in all generations, oldest first."""
    path = log_path(info)
    found: list[str] = []
    for number in range(99, 0, -1):
        for name in (Path(f"{path}.{number}"), Path(f"{path}.{number}.gz")):
            if name.exists():
                data = gzip.decompress(name.read_bytes()) if name.suffix == ".gz" else name.read_bytes()
                found += [json.loads(line)["log"] for line in data.splitlines()]
                break
    return found + logs_of(path)


def test_records_and_attributes_are_dockers(tmp_path: Path) -> None:
    info = info_for(tmp_path / "log", labels="l1", env="E1", tag="jf/{{.ID}}/{{.ImageName}}")
    DRIVER.validate(info.options)
    journal = DRIVER.journal(info)
    journal.append(block_of('plain <&> "q" tab\tend'), Mark(22, 0))
    journal.close()
    path = tmp_path / "log" / (info.container_id + "-json.log")
    assert path.stat().st_mode & 0o7777 == 0o640
    assert path.read_bytes() == (
        b'{"log":"plain \\u003c\\u0026\\u003e \\"q\\" tab\\u0009end\\n","stream":"stdout",'
        b'"attrs":{"E1":"x","l1":"a\\u003cb","tag":"jf/c0ffee000000/busybox:1"},'
        b'"time":"2026-11-20T19:43:32.00302672Z"}\n'
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_size": "-1"}, "invalid size: '-1'"),
        ({"max_size": "0"}, "max-size must be a positive number"),
        ({"max_file": "0"}, "max-file cannot be less than 1"),
        ({"max_file": "x"}, 'strconv.Atoi: parsing "x": invalid syntax'),
        (
            {"compress": "true", "max_size": "1m"},
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ),
        ({"compress": "maybe"}, 'strconv.ParseBool: parsing "maybe": invalid syntax'),
        (
            {"labels_regex": "("},
            'labels-regex: cannot compile "(": missing ), unterminated subpattern at position 0',
        ),
        ({"max_sice": "1"}, "unknown log opt 'max-sice' for json-file log driver"),
    ],
)
def test_bad_options_are_refused_in_dockers_words(options: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError) as raised:
        DRIVER.validate({key.replace("_", "-"): value for key, value in options.items()})
    assert str(raised.value) == message


def oracle_files(records: list[bytes], max_size: int, max_file: int) -> list[bytes]:
    """Docker's rotation, one record after the other; the newest file first. One is kept even for one file."""
    files = [b""]
    for record in records:
        if len(files[0]) >= max_size:
            files = [b"", *files][: max(2, max_file)]
        files[0] += record
    return files


@pytest.mark.parametrize("max_file", [1, 2, 4])
@pytest.mark.parametrize("max_size", [1, 99, 100, 101, 350, 1000, 100_000])
@pytest.mark.parametrize("lines_per_block", [1, 7, 50])
def test_rotation_leaves_dockers_files(
    tmp_path: Path, max_size: int, max_file: int, lines_per_block: int
) -> None:
    info = info_for(tmp_path, max_size=str(max_size), max_file=str(max_file))
    journal = DRIVER.journal(info)
    records: list[bytes] = []
    for first in range(0, 50, lines_per_block):
        block = numbered(first, min(lines_per_block, 50 - first))
        records += codec.Encoder().encode(block).splitlines(keepends=True)
        journal.append(block, Mark(first, 0))
    journal.close()
    path = log_path(info)
    names = [path, *(Path(f"{path}.{n}") for n in range(1, max(2, max_file)))]
    assert [name.read_bytes() for name in names if name.exists()] == oracle_files(records, max_size, max_file)
    assert not Path(f"{path}.{max(2, max_file)}").exists()


def test_old_generations_are_compressed_with_dockers_header(tmp_path: Path) -> None:
    info = info_for(tmp_path, max_size="1k", max_file="4", compress="true")
    journal = DRIVER.journal(info)
    for first in range(0, 40, 4):
        journal.append(numbered(first, 4), Mark(first, 0))
    journal.close()
    kept = all_logs(info)
    assert kept == [f"line {n} of the container's output\n" for n in range(40 - len(kept), 40)]
    names = sorted(name.name.removeprefix(log_path(info).name) for name in tmp_path.glob("*.log*"))
    assert names == ["", ".1.gz", ".2.gz", ".3.gz"]
    header = Path(f"{log_path(info)}.1.gz").read_bytes()
    assert header[3] & 4
    assert b'"lastTime":"2026-11-20T19:43:32.00302672Z"' in header[12 : 12 + header[10] + 256 * header[11]]


def test_a_closed_journal_goes_on_where_it_was(tmp_path: Path) -> None:
    info = info_for(tmp_path)
    for round_ in range(3):
        journal = DRIVER.journal(info)
        resume = journal.resume()
        assert (resume.mark, resume.records, resume.torn_bytes) == (Mark(round_ * 10, round_), 0, 0)
        assert journal.written()[0] == round_ * 5
        assert journal.append(numbered(round_ * 5, 5), Mark(round_ * 10 + 10, round_ + 1)) == journal.end()
        journal.close()
    assert len(logs_of(log_path(info))) == 15


def test_a_kill_at_every_byte_of_an_append_loses_and_repeats_nothing(tmp_path: Path) -> None:
    before = tmp_path / "before"
    info = info_for(before)
    journal = DRIVER.journal(info)
    journal.append(numbered(0, 2), Mark(100, 7))
    journal.close()
    block = block_of("a", 'quo"ted', "z\u2028\ufffd", stream=Stream.STDERR)
    encoded = codec.Encoder().encode(block)
    source_lines = block.data.splitlines(keepends=True)
    for cut in range(len(encoded) + 1):
        killed = info_for(tmp_path / str(cut))
        shutil.copytree(before, killed.directory)
        with log_path(killed).open("ab") as file:
            file.write(encoded[:cut])
        journal = DRIVER.journal(killed)
        resume = journal.resume()
        there = encoded[:cut].count(b"\n")
        assert resume.mark == Mark(100, 7)
        assert resume.records == there
        assert resume.torn_bytes == cut - (encoded.rfind(b"\n", 0, cut) + 1)
        if there:
            assert resume.stream is Stream.STDERR
        assert resume.source_bytes == len(b"".join(source_lines[:there]))
        rest = b"".join(source_lines)[resume.source_bytes :]
        if rest:
            left = Block(rest, Encoding.LINES, Stream.STDERR, NS, NS, rest.count(b"\n"))
            journal.append(left, Mark(100, 7 + len(block.data)))
        assert journal.written() == (5, len(numbered(0, 2).data) + len(block.data))
        journal.close()
        assert logs_of(log_path(killed))[2:] == ["a\n", 'quo"ted\n', "z\u2028\ufffd\n"]
        shutil.rmtree(killed.directory)


def test_pieces_of_a_long_line_are_counted_with_their_newline(tmp_path: Path) -> None:
    journal = DRIVER.journal(info_for(tmp_path))
    for ordinal, last in ((1, False), (2, True)):
        piece = Block(b"x" * 9, Encoding.LINES, Stream.STDOUT, NS, NS, 1, Partial("0" * 64, ordinal, last))
        journal.append(piece, Mark(9 * ordinal + last, 0))
    assert journal.written() == (2, 19)
    journal.close()


def test_an_index_that_cannot_grow_does_not_fail_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = info_for(tmp_path)
    journal = DRIVER.journal(info)
    large = block_of(*("x" * 1000 for _ in range(1200)))
    with monkeypatch.context() as patch:

        def full(self: IndexWriter, sample: Sample) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(IndexWriter, "append", full)
        journal.append(large, Mark(1, 0))
    journal.append(large, Mark(2, 0))
    journal.append(numbered(0, 1), Mark(3, 0))
    reader = DRIVER.reader(info)
    assert reader.end_line() == journal.written()[0] == 2401
    assert [entry.first_line for entry in reader.read(reader.tail(1)).entries] == [2400]
    journal.close()
    reader.close()


def append_until_full(journal: RotatedJournal) -> int:
    """Blocks of ten lines; how many went in whole."""
    for done in range(200):
        try:
            journal.append(numbered(done * 10, 10), Mark(done + 1, 0))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 the loop is the point
            return done
    raise AssertionError("the disk never filled up")


@pytest.mark.parametrize("max_size", ["1g", "5k"])
def test_a_full_disk_leaves_nothing_torn_and_the_block_can_be_appended_again(
    small_disk: Path, max_size: str
) -> None:
    info = info_for(small_disk, max_size=max_size, max_file="20")
    journal = DRIVER.journal(info)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 20_000)
    done = append_until_full(journal)
    assert log_path(info).read_bytes()[-1:] in (b"\n", b"")
    resume = journal.resume()
    assert resume.mark == Mark(done, 0)
    assert len(all_logs(info)) == done * 10 + resume.records
    ballast.unlink()
    journal.append(numbered(done * 10, 10), Mark(done + 1, 0))
    assert journal.written()[0] == (done + 1) * 10
    journal.close()
    assert all_logs(info) == [f"line {n} of the container's output\n" for n in range((done + 1) * 10)]


def test_a_block_given_up_after_a_full_disk_is_not_waited_for(small_disk: Path) -> None:
    info = info_for(small_disk)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 20_000)
    journal = DRIVER.journal(info)
    done = append_until_full(journal)
    kept = journal.resume().records
    journal.give_up(Mark(done + 1, 0))
    ballast.unlink()
    assert journal.resume().mark == Mark(done + 1, 0)
    journal.append(numbered(5000, 2), Mark(done + 2, 0))
    assert journal.written()[0] == done * 10 + kept + 2
    journal.close()
    assert logs_of(log_path(info))[-1] == "line 5001 of the container's output\n"


def test_a_full_disk_and_a_new_writer(small_disk: Path) -> None:
    info = info_for(small_disk)
    journal = DRIVER.journal(info)
    done = append_until_full(journal)
    kept = journal.resume()
    journal.close()
    journal = DRIVER.journal(info)
    assert journal.resume() == kept
    assert len(logs_of(log_path(info))) == done * 10 + kept.records
    journal.close()


#: Lines that a writer may be ahead of its reader: of two lives they are less than there are files for.
AHEAD = 45


def _write_until_killed(info: Info, started: int, allowed: int) -> None:
    """A writer whose source is the lines 0, 1, 2 …; the mark is how many lines, the block size varies.

    It tells the first, and writes a line for each byte that it is given.
    """
    journal = DRIVER.journal(info)
    resume = journal.resume()
    number = resume.mark.stdout + resume.records
    os.write(started, number.to_bytes(8, "big"))
    size = number % 40 + 1
    while True:
        left = size
        while left:
            left -= len(os.read(allowed, left))
        journal.append(numbered(number, size), Mark(number + size, 0))
        number += size
        size = size % 40 + 1


@pytest.mark.parametrize(
    "options",
    [{}, {"max_size": "2k", "max_file": "99"}, {"max_size": "1", "max_file": "99"},
     {"max_size": "3k", "max_file": "99", "compress": "true"}],
)  # fmt: skip
def test_kill_minus_nine_at_any_point_loses_and_repeats_nothing(
    tmp_path: Path, options: dict[str, str]
) -> None:
    info = info_for(tmp_path, **options)
    reader = DRIVER.reader(info)
    position = reader.first()
    seen: list[str] = []
    for _ in range(12):
        readable, started = os.pipe()
        allowed, allow = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                _write_until_killed(info, started, allowed)
            finally:
                os._exit(1)
        try:
            given = int.from_bytes(os.read(readable, 8), "big")
            target = len(seen) + 60
            while len(seen) < target:
                assert os.waitpid(child, os.WNOHANG) == (0, 0)
                if (more := len(seen) + AHEAD - given) > 0:
                    os.write(allow, bytes(more))
                    given += more
                batch = reader.read(position)
                assert batch.lost_lines == 0
                for entry in batch.entries:
                    assert entry.first_line == len(seen)
                    seen += [record.log.decode() for record in codec.decode(entry.block.data)]
                    position = entry.end
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            for descriptor in (readable, started, allowed, allow):
                os.close(descriptor)
    journal = DRIVER.journal(info)
    while batch := reader.read(position).entries:
        for entry in batch:
            seen += [record.log.decode() for record in codec.decode(entry.block.data)]
            position = entry.end
    assert seen == [f"line {n} of the container's output\n" for n in range(journal.written()[0])]
    assert journal.end() == reader.end()
    assert reader.end_line() == len(seen)
    journal.close()
    reader.close()


def copy_state(info: Info, to: Path) -> Info:
    shutil.copytree(info.directory, to)
    return Info(**{name: getattr(info, name) for name in info.__dataclass_fields__} | {"directory": to})


def test_a_log_that_docker_wrote_is_gone_on_with(tmp_path: Path) -> None:
    info = info_for(tmp_path, max_size="1m", max_file="3")
    encoder = codec.Encoder()
    Path(f"{log_path(info)}.1").write_bytes(encoder.encode(numbered(0, 3)))
    log_path(info).write_bytes(encoder.encode(numbered(3, 4)) + b'{"log":"torn')
    journal = DRIVER.journal(info)
    assert journal.resume().torn_bytes == 12
    assert journal.written()[0] == 7
    journal.append(numbered(7, 2), Mark(2, 0))
    reader = DRIVER.reader(info)
    batch = reader.read(reader.first())
    assert [entry.first_line for entry in batch.entries] == [0, 3]
    assert sum(entry.block.lines for entry in batch.entries) == 9
    journal.close()
    reader.close()


def test_a_log_truncated_by_somebody_is_gone_on_with(tmp_path: Path) -> None:
    info = info_for(tmp_path)
    journal = DRIVER.journal(info)
    reader = DRIVER.reader(info)
    journal.append(numbered(0, 10), Mark(1, 0))
    first = reader.read(reader.first(), 100)
    os.truncate(log_path(info), 0)
    journal.append(numbered(10, 3), Mark(2, 0))
    batch = reader.read(first.entries[-1].end)
    assert [entry.block.lines for entry in batch.entries] == [3]
    assert batch.entries[0].first_line == 10
    assert batch.lost_lines == 10 - sum(entry.block.lines for entry in first.entries)
    journal.close()
    os.truncate(log_path(info), 0)
    journal = DRIVER.journal(info)
    assert journal.resume().mark == Mark(2, 0)
    journal.append(numbered(13, 1), Mark(3, 0))
    assert [entry.first_line for entry in reader.read(batch.entries[-1].end).entries] == [13]
    journal.close()
    reader.close()


def test_zeros_a_power_cut_left_are_cut_off(tmp_path: Path) -> None:
    info = info_for(tmp_path)
    journal = DRIVER.journal(info)
    journal.append(numbered(0, 2), Mark(1, 0))
    journal.close()
    with log_path(info).open("ab") as file:
        file.write(b"\x00" * 500)
    journal = DRIVER.journal(info)
    assert journal.resume().torn_bytes == 500
    journal.append(numbered(2, 1), Mark(2, 0))
    journal.close()
    assert len(logs_of(log_path(info))) == 3


def test_a_rotation_killed_between_any_two_steps_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that changes a name is made the last one before a kill, in turn."""

    class Killed(BaseException):
        pass

    for max_file in (1, 3):
        step = 0
        while True:
            info = info_for(tmp_path / f"{max_file}-{step}", max_size="300", max_file=str(max_file))
            journal = DRIVER.journal(info)
            journal.append(numbered(0, 10), Mark(10, 0))
            calls = 0
            with monkeypatch.context() as patch:

                def counting(name: str, limit: int = step) -> None:
                    original = getattr(Path, name)

                    def call(self: Path, *args: object, **kwargs: object) -> object:
                        nonlocal calls
                        if calls == limit:
                            raise Killed
                        calls += 1
                        return original(self, *args, **kwargs)

                    patch.setattr(Path, name, call)

                for name in ("rename", "replace", "unlink"):
                    counting(name)
                try:
                    journal.append(numbered(10, 4), Mark(14, 0))
                    finished = True
                except Killed:
                    finished = False
            if finished:
                journal.close()
                break
            again = DRIVER.journal(info)
            resume = again.resume()
            number = resume.mark.stdout + resume.records
            if number < 14:
                again.append(numbered(number, 14 - number), Mark(14, 0))
            again.append(numbered(14, 20), Mark(34, 0))
            assert again.written()[0] == 34
            kept = all_logs(info)
            assert kept == [f"line {n} of the container's output\n" for n in range(34 - len(kept), 34)]
            again.close()
            step += 1
        assert step > 1


def test_positions_stay_valid_through_rotation_and_compression(tmp_path: Path) -> None:
    info = info_for(tmp_path, max_size="500", max_file="5", compress="true")
    journal = DRIVER.journal(info)
    reader = DRIVER.reader(info)
    journal.append(numbered(0, 3), Mark(3, 0))
    at = reader.read(reader.first(), 1).entries[0].end
    assert at == Position(1, at.offset)
    for number in range(3, 12):
        journal.append(numbered(number, 1), Mark(number + 1, 0))
    journal.close()
    other = DRIVER.reader(info)
    logs = [
        record.log.decode() for entry in other.read(at).entries for record in codec.decode(entry.block.data)
    ]
    assert logs == [f"line {n} of the container's output\n" for n in range(3, 12)]
    assert isinstance(journal, RotatedJournal)
    reader.close()
    other.close()
