"""DNS messages: questions read, answers written, hostile bytes refused."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.networks.dns_message import AAAA, PTR, SERVER_FAILURE, A, MessageError, Question, answer, failure


def query(name: str, kind: int = A, identity: int = 7, flags: int = 0x0100) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".") if part)
    return struct.pack("!6H", identity, flags, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def test_a_question_is_read() -> None:
    question = Question.parse(query("Web.Example"))
    assert (question.id, question.name, question.kind) == (7, "web.example", A)
    assert question.address is None


def test_a_reverse_question_has_an_address() -> None:
    assert Question.parse(query("8.16.22.172.in-addr.arpa", PTR)).address == IPv4Address("172.22.16.8")
    assert Question.parse(query("x.16.22.172.in-addr.arpa", PTR)).address is None
    assert Question.parse(query("800.16.22.172.in-addr.arpa", PTR)).address is None


def test_answers() -> None:
    question = Question.parse(query("web"))
    got = answer(question, ["10.0.0.1", "10.0.0.2"])
    assert struct.unpack("!6H", got[:12]) == (7, 0x8180, 1, 2, 0, 0)
    assert got[12:].startswith(b"\x03web\0\0\x01\0\x01")
    assert got.endswith(b"\0\x04\x0a\0\0\x02")
    assert struct.unpack("!6H", answer(Question.parse(query("web", AAAA)))[:12])[3] == 0
    assert failure(question, SERVER_FAILURE)[3] & 15 == SERVER_FAILURE
    assert answer(question, names=["web.front"]).endswith(b"\x03web\x05front\0")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 11,
        query("web")[:-1],
        query("web")[:14],
        query("web", flags=0x8000),
        query("web", flags=0x2800),
    ],
)
def test_what_is_no_question(data: bytes) -> None:
    with pytest.raises(MessageError):
        Question.parse(data)


@given(st.binary(max_size=600))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        question = Question.parse(data)
    except MessageError:
        return
    assert answer(question, ["10.0.0.1"])[:2] == data[:2]
