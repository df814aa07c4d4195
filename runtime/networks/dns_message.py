"""DNS messages (RFC 1035): reading a question, writing an answer. Pure; only what a resolver for names of
containers needs: one question, A and PTR records.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

__all__ = [
    "AAAA",
    "NAME_ERROR",
    "PTR",
    "REFUSED",
    "SERVER_FAILURE",
    "A",
    "MessageError",
    "Question",
    "answer",
    "failure",
]

A, PTR, AAAA = 1, 12, 28
_IN = 1
SERVER_FAILURE, NAME_ERROR, REFUSED = 2, 3, 5
_TTL_SECONDS = 600
_RESPONSE, _RECURSION_AVAILABLE = 0x8000, 0x0080
_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHHIH")


class MessageError(ValueError):
    """The bytes are no question that can be answered."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question and what its answer repeats of it."""

    id: int
    flags: int
    name: str  #: lower case, without the last dot
    kind: int  #: A, PTR, AAAA, …
    raw: bytes  #: the question section as it came

    @property
    def address(self) -> IPv4Address | None:
        """The address that a PTR question for IPv4 asks about."""
        head, mark, _ = self.name.rpartition(".in-addr.arpa")
        parts = head.split(".")
        if self.kind != PTR or not mark or len(parts) != 4 or not all(part.isdigit() for part in parts):
            return None
        numbers = [int(part) for part in reversed(parts)]
        return IPv4Address(bytes(numbers)) if all(number < 256 for number in numbers) else None

    @classmethod
    def parse(cls, data: bytes) -> Question:
        """Read a query. Raises MessageError."""
        if len(data) < _HEADER.size:
            raise MessageError("shorter than a header")
        identity, flags, questions, *_ = _HEADER.unpack_from(data)
        if flags & _RESPONSE or (flags >> 11) & 15 or questions != 1:
            raise MessageError("expected a standard query with one question")
        labels: list[str] = []
        at = _HEADER.size
        while True:
            length = data[at] if at < len(data) else 255
            if length == 0:
                break
            if length > 63 or at + 1 + length > len(data) or len(labels) > 126:
                raise MessageError("damaged name")
            labels.append(data[at + 1 : at + 1 + length].decode("latin-1"))
            at += 1 + length
        end = at + 5
        if end > len(data):
            raise MessageError("damaged question")
        kind, family = struct.unpack_from("!HH", data, at + 1)
        if family != _IN:
            raise MessageError(f"class {family} is not IN")
        return cls(identity, flags, ".".join(labels).lower(), kind, data[_HEADER.size : end])


def answer(question: Question, addresses: Sequence[str] = (), names: Sequence[str] = ()) -> bytes:
    """An answer with A records, or PTR records; with neither, one that says: the name has no such record."""
    records = [_record(A, IPv4Address(address).packed) for address in addresses]
    records += [_record(PTR, _encoded(name)) for name in names]
    flags = _RESPONSE | _RECURSION_AVAILABLE | question.flags & 0x0100
    return _HEADER.pack(question.id, flags, 1, len(records), 0, 0) + question.raw + b"".join(records)


def failure(question: Question, code: int) -> bytes:
    """An answer that only says what went wrong (RFC 1035, RCODE)."""
    flags = _RESPONSE | _RECURSION_AVAILABLE | question.flags & 0x0100 | code
    return _HEADER.pack(question.id, flags, 1, 0, 0, 0) + question.raw


def _record(kind: int, data: bytes) -> bytes:
    return _RECORD.pack(0xC000 | _HEADER.size, kind, _IN, _TTL_SECONDS, len(data)) + data


def _encoded(name: str) -> bytes:
    labels = [label.encode("latin-1", "replace")[:63] for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
