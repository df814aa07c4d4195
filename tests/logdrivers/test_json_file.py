"""The json-file journal: Docker's records and options, and a log that another has written or truncated."""

import errno
import os
from pathlib import Path

import pytest

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs import json_file as codec
from logdrivers.driver import OptionError
from logdrivers.journal import Mark
from logdrivers.journals.generations import IndexWriter, Sample
from logdrivers.json_file import log_path
from tests.logdrivers.json_file_logs import DRIVER, NS, block_of, info_for, logs_of, numbered


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
