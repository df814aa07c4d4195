"""Connections between two network namespaces and the host, on this kernel, and the map they make."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from collector.cgroup.layout import Layout
from collector.container import Container
from collector.discovery.registry import Containers
from collector.processes.connections import Connections
from collector.processes.graph import ConnectionGraph, Edge
from collector.processes.members import Members
from collector.roots import Roots
from tests.collector.conftest import eventually
from tests.collector.processes.conftest import removed

PROC = Path("/proc")
Program = Callable[..., "subprocess.Popen[str]"]


@dataclass
class Pair:
    """Two containers' namespaces with a wire between them: 10.213.n.1 serves, 10.213.n.2 asks."""

    server: str
    client: str
    net: str
    containers: Containers

    def enter(self, name: str) -> tuple[str, ...]:
        return ("ip", "netns", "exec", name)


@pytest.fixture
def pair() -> Iterator[Pair]:
    tag = uuid.uuid4().hex[:6]
    names = (f"tfs{tag}", f"tfc{tag}")
    net = f"10.213.{int(tag[:2], 16)}"

    def run(*words: str) -> None:
        subprocess.run(words, check=True)

    for name in names:
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
    try:
        run(
            "ip",
            "-n",
            names[0],
            "link",
            "add",
            "eth0",
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            names[1],
        )
        for name, number in zip(names, (1, 2), strict=True):
            run("ip", "-n", name, "address", "add", f"{net}.{number}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
        yield Pair(*names, net, Containers())
    finally:
        for name in names:
            run("ip", "netns", "delete", name)


#: The map shows the host's connections, too, which those of another test may be at the same moment.
PORT = 12_000 + os.getpid() % 16_000

SERVER = f"""
import socket, threading
server = socket.create_server(("", {PORT}))
def serve():
    while True:
        kept.append(server.accept()[0]); kept[-1].sendall(bytes(1000))
kept = []
threading.Thread(target=serve, daemon=True).start()
"""
CLIENT = """
import socket
client = socket.create_connection(("{net}.1", {port})); client.sendall(bytes(300))
got = 0
while got < 1000: got += len(client.recv(4096))
"""


def started(pair: Pair, program: Program, cgroups: tuple[Path, Path]) -> tuple[Container, Container]:
    server = program(SERVER, *pair.enter(pair.server))
    client = program(CLIENT.format(net=pair.net, port=PORT), *pair.enter(pair.client))
    made = []
    for name, process, cgroup in zip(("web", "asking"), (server, client), cgroups, strict=True):
        (cgroup / "cgroup.procs").write_text(str(process.pid))
        made.append(Container(f"/{cgroup.name}", name, cgroup=f"/{cgroup.name}", pid=process.pid))
        pair.containers.update(made[-1])
    settled(pair, 1)
    return made[0], made[1]


def settled(pair: Pair, clients: int) -> None:
    """Wait until the server's kernel has taken in what so many clients have sent."""
    command = ("ip", "netns", "exec", pair.server, "ss", "-Htn", "state", "established", f"sport = :{PORT}")

    def received() -> list[str]:
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return [line.split()[0] for line in shown.splitlines()]

    eventually(lambda: received() == ["300"] * clients)


@pytest.fixture
def cgroups(cgroup: Path) -> Iterator[tuple[Path, Path]]:
    second = cgroup.with_name(cgroup.name + "b")
    second.mkdir()
    yield cgroup, second
    removed(second)


@pytest.fixture
def members(pair: Pair) -> Members:
    return Members(pair.containers, Layout.read(Roots()), PROC)


@pytest.fixture(autouse=True)
def programs_end_first(request: pytest.FixtureRequest) -> None:
    """Cgroups can go only when their processes have: fixtures are undone in the opposite order."""
    for name in ("pair", "cgroups", "program"):
        if name in request.fixturenames:
            request.getfixturevalue(name)


def test_a_connection_has_its_process_bytes_and_the_other_containers_name(
    pair: Pair, program: Program, cgroups: tuple[Path, Path], members: Members
) -> None:
    web, asking = started(pair, program, cgroups)
    found = Connections(pair.containers, members, PROC).of_container(asking)
    (row,) = [row for row in found if row.protocol == "tcp"]
    assert (row.state, row.remote, row.remote_port) == ("ESTABLISHED", f"{pair.net}.1", PORT)
    assert (row.remote_name, row.remote_id, row.translated) == ("web", web.id, "")
    assert (row.pid, row.bytes_sent, row.bytes_received) == (asking.pid, 300, 1000)
    rows = Connections(pair.containers, members, PROC).of_container(web)
    assert {row.state for row in rows} == {"LISTEN", "ESTABLISHED"}
    assert next(row for row in rows if row.state == "ESTABLISHED").remote_name == "asking"
    assert next(row for row in rows if row.state == "ESTABLISHED").receive_queue == 300, (
        "nobody has read them"
    )


def edge_of(graph: ConnectionGraph, port: int = PORT) -> Edge:
    (edge,) = [edge for edge in graph.picture().edges if edge.port == port]
    return edge


def test_the_map_has_one_edge_for_both_ends_and_remembers_it(
    pair: Pair, program: Program, cgroups: tuple[Path, Path], members: Members
) -> None:
    web, asking = started(pair, program, cgroups)
    graph = ConnectionGraph(pair.containers, members, PROC, keep_seconds=100)
    graph.look(now_ns=1_000)
    assert edge_of(graph) == Edge(asking.id, web.id, "tcp", PORT, 1, 1, 300, 1000, 1_000, 1_000)
    graph.look(now_ns=2_000)
    assert edge_of(graph) == Edge(asking.id, web.id, "tcp", PORT, 1, 1, 300, 1000, 1_000, 2_000), (
        "not counted twice"
    )
    nodes = {node.id: (node.name, node.kind) for node in graph.picture().nodes}
    assert nodes[web.id] == ("web", "container")
    more = program(CLIENT.format(net=pair.net, port=PORT), *pair.enter(pair.client))
    settled(pair, 2)
    graph.look(now_ns=3_000)
    assert (edge_of(graph).connections, edge_of(graph).total, edge_of(graph).bytes_sent) == (2, 2, 600)
    more.communicate("")
    pair.containers.update(Container(web.id, "web", state="exited"))
    pair.containers.update(Container(asking.id, "asking", state="exited"))
    graph.look(now_ns=4_000)
    assert (edge_of(graph).connections, edge_of(graph).last_seen_ns) == (0, 3_000), "history"
    assert [edge.port for edge in graph.picture(since_ns=3_001).edges if edge.port == PORT] == []
    graph.look(now_ns=3_000 + 101 * 10**9)
    assert [edge for edge in graph.picture().edges if edge.port == PORT] == []
    assert web.id not in {node.id for node in graph.picture().nodes}


def test_somebody_unknown_is_outside_and_the_graph_has_grafanas_shape(
    pair: Pair, program: Program, cgroups: tuple[Path, Path], members: Members
) -> None:
    web, asking = started(pair, program, cgroups)
    pair.containers.remove(asking.id, "")
    graph = ConnectionGraph(pair.containers, members, PROC)
    graph.look()
    edge = edge_of(graph)
    assert (edge.client, edge.server) == (f"{pair.net}.2", web.id)
    shape = graph.picture().node_graph()
    assert {"id": f"{pair.net}.2", "title": f"{pair.net}.2", "subtitle": "outside"} in shape["nodes"]
    (drawn,) = [edge for edge in shape["edges"] if edge["mainstat"] == f"{PORT}/tcp"]
    assert (drawn["source"], drawn["target"], drawn["secondarystat"]) == (edge.client, web.id, "1")


def test_a_container_that_joined_anothers_network_is_told_from_it(
    pair: Pair, program: Program, cgroups: tuple[Path, Path], members: Members
) -> None:
    web, asking = started(pair, program, cgroups)
    joined = program(
        f"import socket\nsocket_ = socket.create_server(('', {PORT + 1}))", *pair.enter(pair.server)
    )
    inner = cgroups[0] / "joined"
    inner.mkdir()
    (inner / "cgroup.procs").write_text(str(joined.pid))
    path = f"/{cgroups[0].name}/joined"
    second = Container(path, "second", cgroup=path, pid=joined.pid, network_mode=f"container:{web.id}")
    pair.containers.update(second)
    connections = Connections(pair.containers, members, PROC)
    assert {row.local_port for row in connections.of_container(second)} == {PORT + 1}
    talking = program(
        f"import socket\nc = socket.create_connection(('{pair.net}.1', {PORT + 1}))", *pair.enter(pair.client)
    )
    (cgroups[1] / "cgroup.procs").write_text(str(talking.pid))
    graph = ConnectionGraph(pair.containers, members, PROC)
    graph.look()
    assert (edge_of(graph, PORT).server, edge_of(graph, PORT).client) == (web.id, asking.id)
    joined.communicate("")


def test_edges_beyond_the_limit_are_counted(
    pair: Pair, program: Program, cgroups: tuple[Path, Path], members: Members
) -> None:
    started(pair, program, cgroups)
    graph = ConnectionGraph(pair.containers, members, PROC, max_edges=0)
    graph.look()
    assert graph.picture().edges == []
    assert graph.picture().forgotten >= 1


def test_a_namespace_that_only_listens_is_looked_into_seldom_but_a_connection_is_seen_at_once(
    pair: Pair,
    program: Program,
    cgroups: tuple[Path, Path],
    members: Members,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = program(SERVER, *pair.enter(pair.server))
    (cgroups[0] / "cgroup.procs").write_text(str(server.pid))
    web = Container(f"/{cgroups[0].name}", "web", cgroup=f"/{cgroups[0].name}", pid=server.pid)
    pair.containers.update(web)
    graph = ConnectionGraph(pair.containers, members, PROC)
    entered: list[int] = []
    inside = graph._spaces.inside
    monkeypatch.setattr(
        graph._spaces, "inside", lambda space, read: (entered.append(space.pid), inside(space, read))[1]
    )
    for _ in range(4):
        graph.look()
    looks = entered.count(server.pid)
    assert looks == 2, "for its addresses and its sockets, once each"
    program(CLIENT.format(net=pair.net, port=PORT), *pair.enter(pair.client))
    graph.look()
    graph.look()
    assert edge_of(graph).server == web.id
