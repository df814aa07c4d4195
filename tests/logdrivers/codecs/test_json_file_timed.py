"""Records of lines with a time each: the same bytes as of blocks of one line, for any text, stream and time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logdrivers.block import Block, Encoding, Stream
from logdrivers.codecs.json_file import Encoder
from logdrivers.codecs.json_file_timed import TimedEncoder

T = 1_795_203_851_793_123_456
TIMES = st.integers(0, 2**62) | st.integers(0, 40).map(lambda n: T - T % 10**9 + n * 10**8)


@given(
    st.lists(
        st.tuples(
            st.binary(max_size=9) | st.text(st.characters(codec="utf-8"), max_size=9).map(str.encode),
            st.sampled_from([Stream.STDOUT, Stream.STDERR]),
            TIMES,
        ),
        max_size=9,
    ),
    st.sampled_from([{}, {"a": "b", "tag": "x<y"}]),
)
def test_lines_with_a_time_each_are_records_of_blocks_of_one(
    rows: list[tuple[bytes, Stream, int]], attrs: dict[str, str]
) -> None:
    rows = [(text.replace(b"\n", b""), stream, time_ns) for text, stream, time_ns in rows]
    single = [
        Block(text + b"\n", Encoding.LINES, stream, time_ns, time_ns, 1) for text, stream, time_ns in rows
    ]
    streams = np.array([stream for _, stream, _ in rows], np.int64)
    times = np.array([time_ns for _, _, time_ns in rows], np.int64)
    found = TimedEncoder(attrs).encode([text for text, _, _ in rows], streams, times)
    assert found == b"".join(map(Encoder(attrs).encode, single))


def test_a_newline_within_a_line_and_columns_of_unequal_length_are_refused() -> None:
    one, two = np.array([1]), np.array([1, 1])
    with pytest.raises(ValueError, match="1 lines hold 2 newlines"):
        TimedEncoder().encode([b"a\nb"], one, one)
    with pytest.raises(ValueError, match="1 lines with 2 streams and 1 times"):
        TimedEncoder().encode([b"a"], two, one)
