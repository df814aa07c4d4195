"""Connections whose delay and losses were made, told by the group ``tcp``."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from collector.lanes.round_trips import MAX_SERVICES, Connection, quantile, readings_of
from collector.lanes.sockets import TcpGroup
from tests.collector.conftest import eventually
from tests.collector.lanes.conftest import Running, values

CONNECTIONS = "container_network_tcp_service_connections"
RTT = "container_network_tcp_rtt_seconds"
RATIO = "container_network_tcp_retransmit_ratio"

#: A service at 8080 with two connections, one at 9090 with one that has sent more than the line takes at once.
SLOW = """
def connect(port):
    listener = socket.create_server(("127.0.0.1", port))
    kept.append(listener)
    for _ in range(2 if port == 8080 else 1):
        caller = socket.create_connection(("127.0.0.1", port))
        server = listener.accept()[0]
        caller.send(b"x")
        server.recv(1)
        kept.extend((caller, server))
kept = []
subprocess.run("ip link set lo mtu 1500".split(), check=True)
connect(8080)
subprocess.run("tc qdisc add dev lo root tbf rate 400kbit burst 2000 limit 60000".split(), check=True)
connect(9090)
kept[-2].sendall(bytes(8000))
left = 8000
while left: left -= len(kept[-1].recv(left))
kept[-2].sendall(b"x")
kept[-1].recv(1)
info = [kept[n].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104) for n in (1, 3, -2)]
print(*(int.from_bytes(one[at:at + 4], "little") for one in info for at in (68, 100)), flush=True)
"""


def test_round_trips_by_service(run: Callable[..., Running]) -> None:
    """8,000 bytes over a line of 50 kB a second take 0.16 s, and the last of them have waited that long.

    How long the others take is for the host to say: what is told is what the kernel tells the program itself.
    """
    container = run("import sys\nprint('ready', flush=True)\n" + SLOW)
    first_us, first_again, second_us, second_again, slow_us, _ = map(
        int, container.process.stdout.readline().split()
    )
    assert container.process.stdout.readline() == b"ready\n"
    found = container.read(TcpGroup())
    assert {key: value for key, value in found.items() if key[0] == CONNECTIONS} == {
        (CONNECTIONS, "client,8080"): 2,
        (CONNECTIONS, "server,8080"): 2,
        (CONNECTIONS, "client,9090"): 1,
        (CONNECTIONS, "server,9090"): 1,
    }
    assert found[RTT, "client,8080,0.5"] == pytest.approx(min(first_us, second_us) / 1e6)
    assert found[RTT, "client,9090,0.5"] == pytest.approx(slow_us / 1e6)
    assert (found[RATIO, "client,8080,0.99"] == 0) is (first_again == second_again == 0)


LOST = """
listener = socket.create_server(("127.0.0.1", 8080))
caller = socket.create_connection(("127.0.0.1", 8080))
server = listener.accept()[0]
rules = "table ip t { chain c { type filter hook input priority 0; tcp dport 8080 tcp flags psh counter drop; }; }"
subprocess.run(["nft", rules], check=True)
caller.send(b"x")
"""


def test_what_is_lost_is_sent_again(run: Callable[..., Running]) -> None:
    """Nothing but the one segment is sent, again and again: after the first loss half of all are repetitions."""
    container = run(LOST)
    group = TcpGroup()
    eventually(lambda: container.read(group)[RATIO, "client,8080,0.5"] >= 0.5)
    assert container.read(group)[RATIO, "client,8080,0.5"] < 1


def test_a_namespace_without_connections_has_no_series(run: Callable[..., Running]) -> None:
    for code in ("", "listener = socket.create_server(('127.0.0.1', 8080))\n"):
        assert {CONNECTIONS, RTT, RATIO}.isdisjoint(family for family, _ in run(code).read(TcpGroup()))


def test_ipv6(run: Callable[..., Running]) -> None:
    code = """
listener = socket.create_server(("::1", 8080), family=socket.AF_INET6)
one = socket.create_connection(("::1", 8080))
two = listener.accept()[0]
"""
    found = run(code).read(TcpGroup())
    assert found[CONNECTIONS, "server,8080"] == found[CONNECTIONS, "client,8080"] == 1


def test_services_over_the_limit_are_left_out_and_counted() -> None:
    few = [Connection(40000 + port, port, 1000, 1, 0) for port in range(MAX_SERVICES + 2)]
    many = [Connection(50000 + number, 5432, 2000, 10, 1) for number in range(3)]
    readings, cut = readings_of([*few, *many], set())
    found = values(readings)
    assert cut == 3
    assert found[CONNECTIONS, "client,5432"] == 3
    assert found[RTT, "client,5432,0.9"] == 0.002
    assert found[RATIO, "client,5432,0.9"] == 0.1
    assert sum(family == CONNECTIONS for family, _ in found) == MAX_SERVICES


def test_a_connection_that_has_sent_nothing_has_no_share() -> None:
    found = values(readings_of([Connection(1, 2, 0, 0, 0)], set())[0])
    assert found == {(CONNECTIONS, "client,2"): 1}


@pytest.mark.parametrize(("share", "wanted"), [(0.5, 2), (0.9, 4), (0.99, 4), (0.25, 1)])
def test_quantiles_are_values_that_were_seen(share: float, wanted: float) -> None:
    assert quantile([1, 2, 3, 4], share) == wanted
    assert quantile([7], share) == 7
