"""Reads a remote-write request back: a decoder of its own, by the protobuf encoding's definition."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import cramjam


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field number and value of every field of a message."""
    at = 0

    def varint() -> int:
        nonlocal at
        number = shift = 0
        while True:
            byte = data[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    while at < len(data):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
        elif tag & 7 == 1:
            yield tag >> 3, data[at : at + 8]
            at += 8
        else:
            assert tag & 7 == 2, f"wire type {tag & 7}"
            size = varint()
            assert at + size <= len(data)
            yield tag >> 3, data[at : at + size]
            at += size


def series(message: bytes) -> list[tuple[tuple[tuple[str, str], ...], int, int]]:
    """Labels, the value's 64 bits and the time in ms of every sample of a ``WriteRequest``."""
    found = []
    for number, body in fields(message):
        assert number == 1
        assert isinstance(body, bytes)
        labels = []
        samples = []
        for part, inner in fields(body):
            assert isinstance(inner, bytes)
            values = dict(fields(inner))
            if part == 1:
                labels.append((values[1].decode(), values[2].decode()))  # type: ignore[union-attr]
            else:
                assert part == 2
                samples.append((struct.unpack("<Q", values[1])[0], values[2]))  # type: ignore[arg-type]
        ((bits, moment),) = samples
        found.append((tuple(labels), bits, moment))
    return found


def request(body: bytes) -> list[tuple[tuple[tuple[str, str], ...], int, int]]:
    """The same of a compressed request."""
    return series(bytes(cramjam.snappy.decompress_raw(body)))


def number(bits: int) -> float:
    return struct.unpack("<d", struct.pack("<Q", bits))[0]
