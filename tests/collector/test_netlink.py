import struct

import pytest

from collector.netlink import Counters, Link, parse_links, parse_stats


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 1) + body + b"\0" * (-len(body) % 4)


def attribute(kind: int, body: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(body), kind) + body + b"\0" * (-len(body) % 4)


DONE = message(3, b"\0\0\0\0")
DENIED = message(2, struct.pack("=i", -1) + b"\0" * 16)


def test_counters_by_index_over_several_datagrams() -> None:
    found: dict[int, Counters] = {}
    for index in (4, 9):
        stats = attribute(1, struct.pack("=25Q", index, 2, 3, 4, *[0] * 21))
        assert not parse_stats(message(92, struct.pack("=BBHII", 0, 0, 0, index, 1) + stats), found)
    assert parse_stats(DONE, found)
    assert found == {4: Counters(4, 2, 3, 4), 9: Counters(9, 2, 3, 4)}


def test_links_and_their_peers() -> None:
    def link(index: int, *attributes: bytes) -> bytes:
        return message(16, struct.pack("=BBHiII", 0, 0, 1, index, 0, 0) + b"".join(attributes))

    found: list[Link] = []
    info = attribute(18, attribute(1, b"veth\0"))
    veth = link(
        2,
        attribute(3, b"eth0\0"),
        attribute(5, struct.pack("=I", 7)),
        info,
        attribute(37, struct.pack("=i", 0)),
    )
    assert parse_links(link(1, attribute(3, b"lo\0")) + veth + DONE, found)
    assert found == [Link("lo", 1, "", 0, -1), Link("eth0", 2, "veth", 7, 0)]


def test_a_refusal_is_an_error() -> None:
    with pytest.raises(PermissionError, match="netlink: Operation not permitted"):
        parse_stats(DENIED, {})
    with pytest.raises(PermissionError):
        parse_links(DENIED, [])
