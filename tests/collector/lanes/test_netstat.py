"""Protocol counters and connection tracking of network namespaces of the test's own."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collector.lanes.conntrack import ConntrackGroup, parse_table
from collector.lanes.netstat import (
    ADVANCED_TCP,
    FIELDS,
    AdvancedTcpGroup,
    NetstatGroup,
    SockstatGroup,
    field_of,
)
from collector.roots import Roots
from tests.collector.conftest import eventually
from tests.collector.lanes.conftest import Running, values

CALLED = """
listener = socket.create_server(("127.0.0.1", 8080), backlog=4)
calls = [socket.create_connection(("127.0.0.1", 8080)) for _ in range(3)]
for _ in range(2):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9))
"""


def netstat(found: dict[tuple[str, str], float]) -> dict[str, float]:
    return {family.removeprefix("container_netstat_"): value for (family, _), value in found.items()}


def test_what_a_namespace_did_is_counted(run: Callable[..., Running]) -> None:
    container = run(CALLED)
    expected = {
        "Tcp_ActiveOpens": 3,
        "Tcp_PassiveOpens": 3,
        "Tcp_CurrEstab": 6,
        "Udp_OutDatagrams": 2,
        "Udp_NoPorts": 2,
        "TcpExt_ListenOverflows": 0,
    }
    # The kernel may take in packets after those who sent them have gone on.
    eventually(lambda: netstat(container.read(NetstatGroup())).items() >= expected.items())


def test_every_field_node_exporter_has_is_there(run: Callable[..., Running]) -> None:
    assert set(netstat(run().read(NetstatGroup()))) == set(FIELDS)


def test_overflowing_listen_queues_are_counted(run: Callable[..., Running]) -> None:
    code = """
listener = socket.create_server(("127.0.0.1", 8080), backlog=0)
calls = [socket.socket() for _ in range(4)]
for call in calls:
    call.setblocking(False)
    call.connect_ex(("127.0.0.1", 8080))
"""
    container = run(code)
    eventually(lambda: netstat(container.read(NetstatGroup()))["TcpExt_ListenOverflows"] > 0)


def test_full_receive_buffers_are_counted(run: Callable[..., Running]) -> None:
    code = """
sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
sink.bind(("127.0.0.1", 5000))
for _ in range(50):
    sink.sendto(b"x" * 500, ("127.0.0.1", 5000))
"""
    container = run(code)
    eventually(lambda: netstat(container.read(NetstatGroup()))["Udp_RcvbufErrors"] > 0)
    found = netstat(container.read(NetstatGroup()))
    assert found["Udp_RcvbufErrors"] == found["Udp_InErrors"]


def test_advanced_tcp_has_cadvisors_label_values(run: Callable[..., Running]) -> None:
    container = run(CALLED)
    found = container.read(AdvancedTcpGroup())
    assert {family for family, _ in found} == {"container_network_advance_tcp_stats_total"}
    states = {state: value for (_, state), value in found.items()}
    assert states.keys() <= ADVANCED_TCP
    assert states["activeopens"] == 3
    assert states["maxconn"] == -1
    assert len(states) > 80


def test_sockstat_is_the_namespaces_own(run: Callable[..., Running]) -> None:
    with socket.create_server(("127.0.0.1", 0)):
        container = run(CALLED)
        eventually(lambda: container.read(SockstatGroup())["container_sockstat_TCP_inuse", ""] == 7)
        found = container.read(SockstatGroup())
    shown = {family.removeprefix("container_sockstat_"): value for (family, _), value in found.items()}
    assert shown["TCP_inuse"] == 7
    assert shown["UDP_inuse"] == 0
    assert shown["TCP6_inuse"] == 0
    assert not {"TCP_mem", "TCP_orphan", "TCP_alloc", "UDP_mem"} & shown.keys()  # the whole host's


class Files:
    """A container that is only its files."""

    counts_network = True

    def __init__(self, directory: Path, files: dict[str, bytes]) -> None:
        self.directory = directory
        (directory / "net/stat").mkdir(parents=True)
        for name, data in files.items():
            (directory / "net" / name).write_bytes(data)

    def open_proc(self, name: str) -> int:
        return os.open(self.directory / name, os.O_RDONLY)


SNMP = b"Ip: Forwarding DefaultTTL\nIp: 1 64\nTcp: MaxConn RetransSegs\nTcp: -1 7\n"


def test_a_kernel_with_other_fields(tmp_path: Path) -> None:
    files = Files(tmp_path, {"snmp": SNMP, "netstat": b"TcpExt: New ListenDrops\nTcpExt: 5 6\n"})
    group: Any = NetstatGroup()
    assert netstat(values(group.read(files))) == {
        "Ip_Forwarding": 1,
        "Tcp_RetransSegs": 7,
        "TcpExt_ListenDrops": 6,
    }


@pytest.mark.parametrize("bad", [b"Tcp: A RetransSegs\nTcp: 1\n", b"Tcp: RetransSegs\nUdp: 1\n"])
def test_lines_that_do_not_go_together_are_refused(tmp_path: Path, bad: bytes) -> None:
    files = Files(tmp_path, {"snmp": bad, "netstat": b""})
    group: Any = NetstatGroup()
    with pytest.raises(ValueError, match="expected a number for each"):
        group.read(files)


def test_a_field_that_is_not_wanted_has_no_family() -> None:
    assert field_of("Tcp", "RtoMin") is None


# --- connection tracking ---


def tracking(pid: int) -> None:
    """Have the namespace of a process track its connections."""
    rules = "table ip t { chain c { type filter hook input priority 0; ct state new accept; }; }"
    subprocess.run(["nsenter", "-t", str(pid), "-n", "nft", "-f", "-"], input=rules.encode(), check=True)


def test_tracked_connections(run: Callable[..., Running]) -> None:
    code = """
sys.stdin.readline()
listener = socket.create_server(("127.0.0.1", 8080), backlog=10)
calls = [socket.create_connection(("127.0.0.1", 8080)) for _ in range(4)]
"""
    container = run("print('ready', flush=True)\nimport sys\n" + code)
    tracking(container.process.pid)
    container.process.stdin.write(b"\n")
    container.process.stdin.flush()
    assert container.process.stdout.readline() == b"ready\n"
    found = {family: value for (family, _), value in container.read(ConntrackGroup(Roots())).items()}
    assert found["container_nf_conntrack_entries"] == 4
    limit = int(Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text())
    assert found["container_nf_conntrack_entries_limit"] == limit
    assert found["container_nf_conntrack_stat_drop"] == 0
    assert len(found) == 5


def test_the_file_says_what_netlink_says(run: Callable[..., Running]) -> None:
    container = run()
    by_file = ConntrackGroup(Roots())
    by_file._netlink = False
    assert container.read(by_file) == container.read(ConntrackGroup(Roots()))


def test_counters_are_summed_over_cpus_and_hexadecimal() -> None:
    data = b"entries  found insert_failed drop early_drop\n0000000a 00 0000000f 1 2\n0000000a 00 1 0 10\n"
    assert parse_table(data) == (10, {9: 16, 10: 1, 11: 18})


def test_another_table_is_refused() -> None:
    with pytest.raises(ValueError, match="begins with 'entries'"):
        parse_table(b"x y\n1 2\n")


def test_a_kernel_that_tracks_nothing_is_not_asked(run: Callable[..., Running], tmp_path: Path) -> None:
    container = run()
    assert ConntrackGroup(Roots(proc=tmp_path)).read(container.target) == ()
