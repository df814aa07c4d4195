from __future__ import annotations

from pathlib import Path

import pytest

from logdrivers.block import Block, Encoding, Partial, Stream, count_lines, whole_lines
from logdrivers.codecs.gelf import GelfEncoder
from logdrivers.codecs.syslog import SyslogEncoder
from logdrivers.driver import Info

INFO = Info("c" * 64, "/web", "sha256:1", "shop/web", ("sh",), 0, Path("/none"), hostname="host")


def block(data: bytes, encoding: Encoding = Encoding.LINES, partial: Partial | None = None) -> Block:
    return Block(data, encoding, Stream.STDERR, 1_000_000_001, 1_000_000_001, data.count(b"\n") or 1, partial)


@pytest.mark.parametrize("data", [b"", b"\n", b"a", b"a\n", b"\n\n\n", b"a\nb", b"\xff\n" * 1000 + b"x"])
def test_lines_are_counted(data: bytes) -> None:
    assert count_lines(data) == data.count(b"\n")


def test_messages_pieces_and_records_are_not_lines() -> None:
    assert whole_lines(block(b"a\n\n"))
    assert not whole_lines(block(b"a\n", Encoding.MESSAGE))
    assert not whole_lines(block(b"a\n", Encoding.JSON_FILE))
    assert not whole_lines(block(b"a", partial=Partial("f" * 64, 1, False)))


LINES = [
    b"plain\n",
    b"plain\nmore\n",
    b"\nplain\n\n\nmore\n\n",
    b'q "quoted" \\ <&>\n\x7f\n',
    b"tab\there\n",
    b"\xff\xfe\n\xe2\x80\xa8\n\r\n\x00\n",
    b"\n",
]


@pytest.mark.parametrize("data", LINES)
def test_gelf_frames_are_the_messages_one_after_the_other(data: bytes) -> None:
    apart, together = GelfEncoder(INFO), GelfEncoder(INFO)
    assert together.frames(block(data)) == b"".join(text + b"\0" for text in apart.payloads(block(data)))
    assert together.empty_lines == apart.empty_lines


@pytest.mark.parametrize("data", LINES)
@pytest.mark.parametrize("form", ["", "rfc5424micro"])
def test_syslog_frames_are_the_messages_one_after_the_other(data: bytes, form: str) -> None:
    apart, together = (SyslogEncoder("tag", "host", 1, form=form) for _ in range(2))
    assert together.frames(block(data)) == b"".join(apart.messages(block(data)))
    assert together.empty_lines == apart.empty_lines
