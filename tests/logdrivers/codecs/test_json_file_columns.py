"""Columns of json-file records say what decoding record by record says, for every file there may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs.json_file import Encoder, decode
from logdrivers.codecs.json_file_columns import columns


def rows(data: bytes) -> list[tuple[int, Stream, bytes]]:
    times_ns, streams, logs = columns(data)
    return list(zip(times_ns, streams, logs, strict=True))


def one_by_one(data: bytes) -> list[tuple[int, Stream, bytes]]:
    return [(record.time_ns, record.stream, record.log) for record in decode(data)]


TIMES = st.one_of(
    st.integers(1_795_203_851 * 10**9, 1_795_203_853 * 10**9),
    st.integers(0, 4_000_000_000).map(lambda second: second * 10**9),
    st.integers(0, 4_000_000_000 * 10**9),
)


@given(
    st.lists(st.tuples(st.binary(max_size=40), TIMES, st.sampled_from([1, 2]), st.booleans())),
    st.sampled_from([None, {"app": 'a"b'}]),
)
def test_columns_are_the_records(
    given_lines: list[tuple[bytes, int, int, bool]], attrs: dict[str, str] | None
) -> None:
    encoder = Encoder(attrs)
    data = b""
    for text, time_ns, stream, whole in given_lines:
        text = text.replace(b"\n", b"")
        partial = None if whole else Partial("a" * 64, 1, False)
        text += b"\n" if whole else b""
        data += encoder.encode(Block(text, Encoding.LINES, Stream(stream), time_ns, time_ns, 1, partial))
    assert rows(data) == one_by_one(data)
    assert rows(data[:-1]) == one_by_one(data)


@pytest.mark.parametrize(
    "line",
    [
        '{"time":"2026-11-20T19:43:32Z","log":"order\\n","stream":"stdout"}',
        '{"log":"no stream\\n","time":"2026-11-20T19:43:32Z"}',
        '{"log":"strange stream\\n","stream":"x","time":"2026-11-20T19:43:32Z"}',
        '{"stream":"stdout","time":"2026-11-20T19:43:32Z"}',
        '{"log":"lone \\ud800\\n","stream":"stdout","time":"2026-11-20T19:43:32Z"}',
        '{"log":"zone\\n","stream":"stdout","time":"2026-11-20T19:43:32.5+01:00"}',
        '{"log":"digits\\n","stream":"stdout","time":"2026-11-20T19:43:32.1234567891234Z"}',
        '{"log":"other digits\\n","stream":"stdout","time":"2026-11-20T19:43:32.\u0665Z"}',
        '{"log":"point\\n","stream":"stdout","time":"2026-11-20T19:43:32.Z"}',
        '{"log":"two\\n","stream":"stdout","time":"2026-11-20T19:43:32Z"},{"log":"in one line"}',
        '{"log":5,"stream":"stdout","time":"2026-11-20T19:43:32Z"}',
        '{"log":"no time\\n","stream":"stdout"}',
        "",
        "5",
        "\0" * 20,
    ],
)
@pytest.mark.parametrize("behind", [False, True])
def test_unusual_lines_are_what_they_are_one_by_one(line: str, behind: bool) -> None:
    usual = b'{"log":"usual\\n","stream":"stdout","time":"2026-11-20T19:43:32.123Z"}\n'
    data = (usual if behind else b"") + line.encode() + b"\n" + usual
    try:
        expected = one_by_one(data)
    except ValueError:
        with pytest.raises(ValueError, match="not a json-file record"):
            rows(data)
    else:
        assert rows(data) == expected


def test_nothing_is_no_record() -> None:
    assert rows(b"") == []
