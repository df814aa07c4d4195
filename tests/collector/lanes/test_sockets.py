"""Sockets in network namespaces of the test's own, counted by the groups ``tcp`` and ``udp``."""

from __future__ import annotations

import errno
import operator
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from collector.discovery.registry import Containers
from collector.lanes import inside
from collector.lanes.inside import Dump, read_sockstat, shared_readings
from collector.lanes.sockets import (
    MAX_PORTS,
    TCP_STATES,
    UDP_STATES,
    TcpGroup,
    UdpGroup,
    parse_in_use,
    parse_tcp_table,
    parse_udp_table,
)
from tests.collector.conftest import eventually
from tests.collector.lanes.conftest import Running

TCP, TCP6 = "container_network_tcp_usage_total", "container_network_tcp6_usage_total"
UDP, UDP6 = "container_network_udp_usage_total", "container_network_udp6_usage_total"
LENGTH, LIMIT = "container_network_listen_queue_length", "container_network_listen_queue_limit"

THREE_CONNECTIONS = """
listener = socket.create_server(("127.0.0.1", 8080), backlog=16)
kept = [listener]
for _ in range(3):
    kept.append(socket.create_connection(("127.0.0.1", 8080)))
    kept.append(listener.accept()[0])
"""


def test_connections_are_counted_by_state(run: Callable[..., Running]) -> None:
    found = run(THREE_CONNECTIONS).read(TcpGroup())
    states = {state: found[TCP, state] for state in TCP_STATES}
    assert states == dict.fromkeys(TCP_STATES, 0) | {"listen": 1, "established": 6}
    assert {found[TCP6, state] for state in TCP_STATES} == {0}


def test_a_namespace_without_sockets_has_every_state_at_zero(run: Callable[..., Running]) -> None:
    container = run()
    found = container.read(TcpGroup()) | container.read(UdpGroup())
    assert len(found) == 2 * len(TCP_STATES) + 2 * len(UDP_STATES)
    assert set(found.values()) == {0}


def test_sockets_over_ipv6_are_counted_apart(run: Callable[..., Running]) -> None:
    code = """
listener = socket.create_server(("::1", 8080), family=socket.AF_INET6)
one = socket.create_connection(("::1", 8080))
two = listener.accept()[0]
"""
    found = run(code).read(TcpGroup())
    assert (found[TCP6, "listen"], found[TCP6, "established"]) == (1, 2)
    assert found[TCP, "listen"] == 0


def test_closing_states(run: Callable[..., Running]) -> None:
    """The side that closed waits in FIN_WAIT2, the other in CLOSE_WAIT; both closed leave a TIME_WAIT."""
    code = """
listener = socket.create_server(("127.0.0.1", 8080))
half = socket.create_connection(("127.0.0.1", 8080)), listener.accept()[0]
half[0].shutdown(socket.SHUT_WR)
whole = socket.create_connection(("127.0.0.1", 8080)), listener.accept()[0]
whole[0].close()
assert whole[1].recv(1) == b""
whole[1].close()
"""
    container = run(code)
    expected = {"finwait2": 1, "closewait": 1, "timewait": 1, "established": 0, "lastack": 0}

    def states() -> dict[str, float]:
        found = container.read(TcpGroup())
        return {state: found[TCP, state] for state in expected}

    eventually(lambda: states() == expected)  # once the acknowledgements are there


def test_half_open_connections(run: Callable[..., Running]) -> None:
    """A connection nobody answers is in SYN_SENT."""
    code = """
for command in (
    "link add a0 type veth peer name a1",
    "addr add 192.0.2.1/24 dev a0",
    "link set a0 up",
    "link set a1 up",
    "neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev a0",
):
    subprocess.run(["ip", *command.split()], check=True)
caller = socket.socket()
caller.setblocking(False)
caller.connect_ex(("192.0.2.9", 9))
"""
    assert run(code).read(TcpGroup())[TCP, "synsent"] == 1


def test_a_full_listen_queue(run: Callable[..., Running]) -> None:
    """A backlog of 4 takes 5 connections that nobody accepts."""
    code = """
listener = socket.create_server(("127.0.0.1", 8080), backlog=4)
idle = socket.create_server(("127.0.0.1", 9090), backlog=100)
calls = [socket.create_connection(("127.0.0.1", 8080)) for _ in range(5)]
"""
    container = run(code)
    eventually(
        lambda: container.read(TcpGroup())[LENGTH, "8080"] == 5
    )  # who called goes on before it is queued
    found = container.read(TcpGroup())
    assert (found[LENGTH, "8080"], found[LIMIT, "8080"]) == (5, 4)
    assert (found[LENGTH, "9090"], found[LIMIT, "9090"]) == (0, 100)


def test_of_several_sockets_at_a_port_the_fullest_is_shown(run: Callable[..., Running]) -> None:
    code = """
first = socket.create_server(("127.0.0.1", 8080), backlog=50)
second = socket.create_server(("127.0.0.2", 8080), backlog=2)
calls = [socket.create_connection(("127.0.0.2", 8080)) for _ in range(2)]
"""
    container = run(code)
    eventually(lambda: container.read(TcpGroup())[LENGTH, "8080"] == 2)
    assert container.read(TcpGroup())[LIMIT, "8080"] == 2


def test_listening_ports_over_the_limit_are_left_out_and_counted(run: Callable[..., Running]) -> None:
    group = TcpGroup()
    code = f"kept = [socket.create_server(('127.0.0.1', 8000 + n)) for n in range({MAX_PORTS} + 3)]\n"
    found = run(code).read(group)
    assert sum(family == LENGTH for family, _ in found) == MAX_PORTS
    assert found[TCP, "listen"] == MAX_PORTS + 3
    assert group.cut == 3


def test_udp_sockets_queues_and_drops(run: Callable[..., Running]) -> None:
    code = """
small = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
small.bind(("127.0.0.1", 5000))
other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
other.bind(("127.0.0.1", 5001))
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
six.bind(("::1", 5000))
for _ in range(50):
    other.sendto(b"x" * 500, ("127.0.0.1", 5000))
"""
    container = run(code)
    eventually(lambda: container.read(UdpGroup())[UDP, "dropped"] > 0)
    found = container.read(UdpGroup())
    assert found[UDP, "listen"] == 2
    assert found[UDP6, "listen"] == 1
    assert found[UDP, "rxqueued"] > 0
    assert 0 < found[UDP, "dropped"] < 50
    assert (found[UDP6, "dropped"], found[UDP6, "rxqueued"]) == (0, 0)


def test_udp_by_the_table_says_the_same(run: Callable[..., Running]) -> None:
    """What is read on a kernel without udp_diag."""
    code = """
sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
sink.bind(("127.0.0.1", 5000))
for _ in range(20):
    sink.sendto(b"x" * 700, ("127.0.0.1", 5000))
"""
    container = run(code)

    def both() -> tuple[object, object]:
        table = parse_udp_table(Path(f"/proc/{container.process.pid}/net/udp").read_bytes())
        found = container.read(UdpGroup())
        return tuple(found[UDP, state] for state in UDP_STATES), table

    eventually(lambda: operator.eq(*both()))  # the kernel may still be at work on what was sent


def test_a_kernel_without_sock_diag_is_read_by_its_tables(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        THREE_CONNECTIONS
        + """
sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sink.bind(("127.0.0.1", 5000))
"""
    )
    container = run(code)
    asked = container.read(TcpGroup()) | container.read(UdpGroup())

    def refuse(*_args: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "netlink: Operation not supported")

    monkeypatch.setattr(Dump, "ask", refuse)
    found = container.read(TcpGroup()) | container.read(UdpGroup())
    # Of queues and round trips no table tells.
    told = (TCP, TCP6, *(key[0] for key in asked if "udp" in key[0]))
    assert found == {key: value for key, value in asked.items() if key[0] in told}


def test_a_tcp_table_without_states_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a state in the fourth column"):
        parse_tcp_table(b"  sl  local_address\n 0: 0100007F:1F90 00000000:0000 00 x\n")


@pytest.mark.parametrize("mode", ["host", "none"])
def test_a_container_without_a_network_of_its_own_has_no_series(
    run: Callable[..., Running], mode: str
) -> None:
    container = run(network=mode == "none", network_mode=mode)
    assert container.read(TcpGroup()) == {}
    assert container.read(UdpGroup()) == {}


def test_a_shared_namespace_is_counted_once_at_its_owner(
    run: Callable[..., Running], containers: Containers
) -> None:
    owner = run(THREE_CONNECTIONS)
    joined = run("", network=False, network_mode=f"container:{owner.container.id}")
    # A process of the owner's namespace, as an engine starts a member of it.
    containers.update(replace(joined.container, pid=owner.process.pid))
    assert owner.read(TcpGroup())[TCP, "established"] == 6
    assert joined.read(TcpGroup()) == {}


def test_the_thread_is_back_in_its_own_namespace_and_nothing_is_kept(run: Callable[..., Running]) -> None:
    container = run(THREE_CONNECTIONS)
    group = TcpGroup()
    container.read(group)
    before = Path("/proc/thread-self/ns/net").readlink()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    container.read(group)
    assert Path("/proc/thread-self/ns/net").readlink() == before
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_a_container_that_ended_is_an_error_that_says_gone(run: Callable[..., Running]) -> None:
    container = run(THREE_CONNECTIONS)
    target = container.target
    container.process.kill()
    container.process.wait()
    with pytest.raises((ProcessLookupError, FileNotFoundError)):
        TcpGroup().read(target)


def test_ten_thousand_bytes_of_answer_are_all_counted(run: Callable[..., Running]) -> None:
    """More sockets than fit into one datagram of the kernel's answer."""
    code = """
kept = [socket.create_server(("127.0.0.1", 8080), backlog=600)]
for _ in range(400):
    kept.append(socket.create_connection(("127.0.0.1", 8080)))
    kept.append(kept[0].accept()[0])
"""
    assert run(code).read(TcpGroup())[TCP, "established"] == 800


def test_in_use_without_ipv6() -> None:
    text = b"sockets: used 3\nTCP: inuse 2 orphan 0 tw 1 alloc 9 mem 0\nUDP: inuse 4 mem 0\n"
    assert parse_in_use(text, b"") == (3, 4, 0)


def test_a_sockstat_without_its_lines_is_refused() -> None:
    with pytest.raises(ValueError, match="expected lines 'TCP: inuse"):
        parse_in_use(b"sockets: used 3\n", b"")


def test_a_udp_table_with_other_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 13 columns"):
        parse_udp_table(b"  sl  local_address\n 1: 0100007F:0035 00000000:0000 07\n")


def test_groups_read_one_after_the_other_share_one_reading_of_the_sockets_in_use(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = run("", network=True), run("", network=True)
    read: list[str] = []
    real = inside.read_file

    def counting(target: object, name: str) -> bytes:
        read.append(name)
        return real(target, name)  # type: ignore[arg-type]

    monkeypatch.setattr(inside, "read_file", counting)
    monkeypatch.setattr(inside, "_SHARED_SECONDS", 3600.0)
    with shared_readings():
        first = read_sockstat(one.target)
        assert read_sockstat(one.target) is first
        assert len(read) == 2
        assert read_sockstat(other.target) is not first
        assert len(read) == 4
    read_sockstat(other.target)
    read_sockstat(other.target)
    assert len(read) == 8
