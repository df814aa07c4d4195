"""HTTP responses: found wherever the stream is cut, and nothing unclear taken for one."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logdrivers.codecs.http_response import HttpError, Response, ResponseReader

STREAM = (
    b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nkeep-alive: timeout=5\r\n\r\n"
    b"HTTP/1.1 400 Bad Request\r\nContent-Length:  5 \r\n\r\nhello"
    b"HTTP/1.1 202\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n"
    b"HTTP/1.1 204 No Content\r\n\r\n"
    b"HTTP/1.1 302 Found\r\nLocation: http://other/\r\nContent-Length: 0\r\n\r\n"
    b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\nx"
    b"HTTP/1.1 503 Gone\r\nConnection: x, CLOSE\r\nContent-Length: 2\r\n\r\nno"
)
RESPONSES = [
    Response(202, "Accepted", True, b""),
    Response(400, "Bad Request", True, b"hello"),
    Response(202, "", True, b"abc0123456789"),
    Response(204, "No Content", True, b""),
    Response(302, "Found to http://other/", True, b""),
    Response(200, "OK", True, b"x"),
    Response(503, "Gone", False, b"no"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=6))
def test_responses_are_found_wherever_the_stream_is_cut(cuts: list[int]) -> None:
    reader = ResponseReader()
    at = [0, *sorted(cuts), len(STREAM)]
    found = [r for start, end in pairwise(at) for r in reader.feed(STREAM[start:end])]
    assert found == RESPONSES
    assert reader.pending_bytes == 0


def test_a_response_without_a_length_ends_with_the_connection() -> None:
    reader = ResponseReader()
    assert reader.feed(b"HTTP/1.1 502 Bad\r\n\r\npa") == reader.feed(b"rt") == []
    assert reader.end() == Response(502, "Bad", False, b"part")
    for cut_short in (b"HTTP/1.1 20", b"HTTP/1.1 200 A\r\nContent-Length: 3\r\n\r\nab", b""):
        reader.feed(cut_short)
        assert reader.end() is None


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not an HTTP response"),
        (b"HTTP/2 200 OK\r\n\r\n", "not an HTTP response"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "not a header field"),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "not a header field"),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "not a header field"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "not a length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "two lengths"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "end is unclear"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "end is unclear"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "size of a chunk"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", "longer than it says"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n", "more than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFF\r\n", "more than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001, "more than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000, "no end of a response's head"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "another protocol"),
    ],
)
def test_what_is_unclear_is_an_error(said: bytes, what: str) -> None:
    with pytest.raises(HttpError, match=what):
        ResponseReader(1000).feed(said)
