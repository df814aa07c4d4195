"""CRI log lines as json-file records."""

from __future__ import annotations

import pytest

from logdrivers.block import Stream
from logdrivers.codecs import cri, json_file


def test_lines_become_records() -> None:
    data = (
        b"2026-11-20T19:43:32.006107856+00:00 stdout F hello\n"
        b"2026-11-20T19:43:33Z stderr P half \n"
        b'2026-11-20T20:43:34.5+01:00 stderr F:x:y a "quoted" \\ \t<tag> \xff\r\n'
        b"2026-11-20T19:43:35.1Z stdout F \n"
        b"2026-11-20T19:43:36.1Z stdout F\n"
    )
    found = cri.to_json_file(data)
    assert (found.lines, found.skipped, found.skipped_bytes) == (5, 0, 0)
    records = json_file.decode(found.data)
    assert [record.log for record in records] == [
        b"hello\n",
        b"half ",
        b'a "quoted" \\ \t<tag> \xef\xbf\xbd\r\n',
        b"\n",
        b"\n",
    ]
    streams = [Stream.STDOUT, Stream.STDERR, Stream.STDERR, Stream.STDOUT, Stream.STDOUT]
    assert [record.stream for record in records] == streams
    start = json_file.parse_time(b"2026-11-20T19:43:32Z")
    assert [record.time_ns - start for record in records] == [
        6_107_856,
        1_000_000_000,
        2_500_000_000,
        3_100_000_000,
        4_100_000_000,
    ]


@pytest.mark.parametrize(
    "bad",
    [
        b"\n",
        b"\0\0\0\n",
        b"2026-11-20T19:43:32Z stdout X text\n",
        b"2026-11-20T19:43:32Z stdin F text\n",
        b"2026-11-20 19:43:32 stdout F text\n",
        b'{"log":"a\\n","stream":"stdout","time":"2026-11-20T19:43:32Z"}\n',
    ],
)
def test_what_is_no_line_is_left_out_and_counted(bad: bytes) -> None:
    good = b"2026-11-20T19:43:32Z stdout F text\r\n"
    found = cri.to_json_file(good + bad + good)
    assert (found.lines, found.skipped, found.skipped_bytes) == (2, 1, len(bad))
    assert [record.log for record in json_file.decode(found.data)] == [b"text\r\n"] * 2


def test_the_last_time() -> None:
    data = b"2026-11-20T19:43:32Z stdout F a\n2026-11-20T20:43:33.5+01:00 stdout P b\n"
    assert cri.last_time(data) == json_file.parse_time(b"2026-11-20T19:43:33.5Z")
    with pytest.raises(ValueError, match="expected a CRI log line"):
        cri.last_time(b"nonsense\n")
