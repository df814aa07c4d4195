"""Connection tracking: the file's lines, netlink's messages, and who is behind a translated address."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from collector.processes.conntrack import Flow, Nat, parse_file, parse_flows, read_flows

DNAT = (
    b"ipv4     2 tcp      6 431999 ESTABLISHED src=192.0.2.9 dst=192.0.2.1 sport=40000 dport=8080 "
    b"src=172.17.0.2 dst=192.0.2.9 sport=80 dport=40000 [ASSURED] mark=0 zone=0 use=2\n"
)
PLAIN = (
    b"ipv4     2 tcp      6 86 TIME_WAIT src=127.0.0.1 dst=127.0.0.1 sport=36444 dport=56823 src=127.0.0.1 "
    b"dst=127.0.0.1 sport=56823 dport=36444 [ASSURED] mark=0 zone=0 use=2\n"
)
UDP = (
    b"ipv6     10 udp      17 29 src=fd00:0000:0000:0000:0000:0000:0000:0002 dst=fd00:0000:0000:0000:0000:0000:"
    b"0000:0001 sport=5000 dport=53 packets=1 bytes=70 [UNREPLIED] src=fd00:0000:0000:0000:0000:0000:0000:0001 "
    b"dst=fd00:0000:0000:0000:0000:0000:0000:0002 sport=53 dport=5000 packets=2 bytes=140 mark=0 use=2\n"
)
ICMP = b"ipv4     2 icmp     1 29 src=1.2.3.4 dst=1.2.3.5 type=8 code=0 id=1 src=1.2.3.5 dst=1.2.3.4 type=0 use=2\n"


def test_lines_that_tell_more_than_sockets_do() -> None:
    translated, udp = parse_file(PLAIN + DNAT + ICMP + UDP + PLAIN)
    assert translated == Flow(
        *("tcp", "192.0.2.9", 40000, "192.0.2.1", 8080, "172.17.0.2", 80, "192.0.2.9", 40000, None, None)
    )
    assert udp == ("udp", "fd00::2", 5000, "fd00::1", 53, "fd00::1", 53, "fd00::2", 5000, 70, 140)
    assert (translated.translated, udp.translated) == (True, False)


def test_both_ends_of_a_translated_connection_find_each_other() -> None:
    masqueraded = Flow(
        "tcp", "172.17.0.3", 4000, "10.0.0.1", 8080, "172.17.0.2", 80, "172.17.0.1", 61000, None, None
    )
    nat = Nat([masqueraded])
    assert nat.remote("tcp", "172.17.0.3", 4000, "10.0.0.1", 8080) == ("172.17.0.2", 80)
    assert nat.remote("tcp", "172.17.0.2", 80, "172.17.0.1", 61000) == ("172.17.0.3", 4000)
    assert nat.remote("udp", "172.17.0.3", 4000, "10.0.0.1", 8080) == ("10.0.0.1", 8080), "another protocol"
    assert nat.remote("tcp", "1.1.1.1", 1, "2.2.2.2", 2) == ("2.2.2.2", 2)


def test_file_and_netlink_agree(tmp_path: Path) -> None:
    """The table is the kernel's own and changes: what both have at both times must be equal."""
    read_flows(Path("/proc"))
    before, netlink, after = (set(read_flows(proc)[0]) for proc in (Path("/proc"), tmp_path, Path("/proc")))
    lasting = {flow[:9] for flow in before} & {flow[:9] for flow in after}
    assert lasting <= {flow[:9] for flow in netlink}


def test_a_long_table_is_cut_and_the_rest_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/nf_conntrack").write_bytes(DNAT * 2000)
    monkeypatch.setattr("collector.processes.conntrack.MAX_BYTES", 100_000)
    flows, left = read_flows(tmp_path)
    assert 0 < len(flows) < 2000
    assert left == len(DNAT) * 2000 - 131072


def attribute(number: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 2, 1, 0) + body


def tracked(port: int, server: bytes) -> bytes:
    """IPCTNL_MSG_CT_NEW of a TCP connection to 10.0.0.1, which is really the server's."""
    ends = ((b"\x0a\0\0\x02", b"\x0a\0\0\x01", port, 80), (server, b"\x0a\0\0\x02", 80, port))
    tuples = b""
    for number, (source, destination, sport, dport) in enumerate(ends, 1):
        ip = attribute(1, source) + attribute(2, destination)
        proto = attribute(1, b"\6") + attribute(2, sport.to_bytes(2)) + attribute(3, dport.to_bytes(2))
        tuples += attribute(number | 0x8000, attribute(1 | 0x8000, ip) + attribute(2 | 0x8000, proto))
    return message(0x100, b"\2\0\0\0" + tuples)


def test_a_long_dump_is_cut_and_the_rest_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By netlink, for want of the file; connections that sockets tell of are not kept."""
    datagrams = [
        b"".join(tracked(start + port, b"\x0a\0\0\3" if port % 2 else b"\x0a\0\0\1") for port in range(20))
        for start in range(1000, 5000, 100)
    ]

    class Kernel:
        """What answers at the other end of a netlink socket."""

        def __init__(self, protocol: int) -> None:
            assert protocol == 12, "NETLINK_NETFILTER"
            self._answers = iter((*datagrams, message(3, bytes(4))))

        def __enter__(self) -> Kernel:
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing to give back."""

        def send(self, _request: bytes) -> None:
            """Any request is for the table."""

        def recv(self, _size: int) -> bytes:
            return next(self._answers)

    monkeypatch.setattr("collector.processes.conntrack.open_socket", Kernel)
    whole, left = read_flows(tmp_path)
    assert (len(whole), left) == (400, 0)
    assert whole[0][:7] == ("tcp", "10.0.0.2", 1001, "10.0.0.1", 80, "10.0.0.3", 80)

    monkeypatch.setattr("collector.processes.conntrack.MAX_BYTES", 3 * len(datagrams[0]) - 1)
    cut, left = read_flows(tmp_path)
    assert cut == whole[:30]
    assert left == sum(map(len, datagrams[3:]))


def test_damaged_messages_end_in_an_error_or_in_fewer_flows() -> None:
    random.seed(7)
    for _ in range(300):
        data = bytes([random.randrange(24, 80), 0, 0, 0, 0, 1, 2, 0]) + random.randbytes(
            random.randrange(8, 120)
        )
        try:
            parse_flows(data, [])
        except (OSError, ValueError):
            continue
