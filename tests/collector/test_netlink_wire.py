"""Netlink's framing: what the kernel sends, and what it never would; and reading in another namespace."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from collector.namespaces import in_namespace
from collector.netlink_wire import DONE, HEADER, attribute, attributes, messages, request


def test_messages_one_after_the_other_padded_to_four() -> None:
    data = request(20, b"abcde") + bytes(3) + request(DONE, b"\0" * 4)
    assert list(messages(data)) == [(20, 0, 21), (DONE, 24, 44)]
    assert list(messages(memoryview(data))) == [(20, 0, 21), (DONE, 24, 44)]


@pytest.mark.parametrize("length", [0, 15, 40])
def test_a_length_that_cannot_be_is_an_error(length: int) -> None:
    data = HEADER.pack(length, 20, 0, 1, 0) + bytes(8)
    with pytest.raises(OSError, match=f"a message of {length} bytes at 0, expected 16 to 24"):
        list(messages(data))


def test_the_kernels_error_is_raised() -> None:
    with pytest.raises(PermissionError, match="Operation not permitted"):
        list(messages(request(2, struct.pack("=i", -1) + bytes(16))))


def test_attributes_up_to_one_that_cannot_be() -> None:
    data = (
        struct.pack("=HH", 5, 1) + b"a\0\0\0" + struct.pack("=HHI", 8, 0x8002, 7) + struct.pack("=HH", 3, 9)
    )
    assert list(attributes(data, 0, len(data))) == [(1, b"a"), (2, struct.pack("=I", 7))]
    assert attribute(data, 0, len(data), 2) == struct.pack("=I", 7)
    assert attribute(data, 0, len(data), 9) is None


def test_what_fails_in_a_namespace_is_raised_to_who_asked() -> None:
    def fail() -> None:
        raise struct.error("short")

    directory = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY)
    try:
        before = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(struct.error, match="short"):
            in_namespace(directory, fail)
        assert in_namespace(directory, lambda: 7) == 7
        assert len(list(Path("/proc/self/fd").iterdir())) == before
    finally:
        os.close(directory)
