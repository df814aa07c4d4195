"""Networks against the real kernel: namespaces, bridges, packets, published ports, and nothing left behind."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.config import EndpointConfig, PortBinding
from runtime.errors import BadRequest, Conflict, Forbidden, NotFound, ServerError
from runtime.mounts import mount_points
from runtime.networks.network import Attachment, NetworkRequest, Networks


def a_subnet(prefix: int = 24) -> str:
    """One that nobody else uses: parallel runs must not look for free ones at the same moment."""
    number = uuid.uuid4().int
    return f"10.{224 + number % 16}.{number // 16 % 256}.0/{prefix}"


class Place:
    """State and run directories, and names, that no other test has."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.unique = uuid.uuid4().hex[:8]
        self.opened: list[Networks] = []

    def open(self) -> Networks:
        networks = Networks(
            self.directory / "state",
            self.directory / "run",
            bridge=f"tft{self.unique}",
            subnet=a_subnet(),
            table=f"tft{self.unique}",
        )
        networks.start()
        self.opened.append(networks)
        return networks

    def request(self, name: str, **more: Any) -> NetworkRequest:
        bridge = f"tf{uuid.uuid4().hex[:10]}"
        options = {"com.docker.network.bridge.name": bridge, **more.pop("options", {})}
        return NetworkRequest(name, options=options, **{"subnet": a_subnet(), **more})


@pytest.fixture
def place() -> Iterator[Place]:
    directory = Path(tempfile.mkdtemp(prefix="tf-", dir="/tmp"))
    found = Place(directory)
    yield found
    if found.opened:
        found.opened[-1].destroy()
    assert mount_points(directory) == []
    shutil.rmtree(directory)


@pytest.fixture
def networks(place: Place) -> Networks:
    return place.open()


def new_id() -> str:
    return uuid.uuid4().hex * 2


def inside(attachment: Attachment, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["nsenter", f"--net={attachment.netns_path}", *command],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


def pings(source: Attachment, address: str) -> bool:
    return inside(source, "busybox", "ping", "-c", "1", "-W", "30", address).returncode == 0


def cut_off(source: Attachment, address: str) -> bool:
    return inside(source, "busybox", "ping", "-c", "1", "-W", "1", address).returncode != 0


def interfaces() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def loose_ends() -> set[str]:
    """Ends of pairs that no bridge has."""
    return {
        name
        for name in interfaces()
        if name.startswith("veth") and not Path("/sys/class/net", name, "master").exists()
    }


class Listener:
    """Something that answers ``hi`` on a port in a namespace."""

    def __init__(self, attachment: Attachment, port: int) -> None:
        script = (
            "import socket,sys\n"
            f"s=socket.create_server(('0.0.0.0',{port}))\n"
            "print('ready',flush=True)\n"
            "while True:\n c,_=s.accept(); c.sendall(b'hi'); c.close()\n"
        )
        self.process = subprocess.Popen(
            ["nsenter", f"--net={attachment.netns_path}", "python3", "-c", script],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> Listener:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def ask(address: str, port: int, source: Attachment | None = None, seconds: int = 30) -> str:
    command = ["busybox", "nc", "-w", str(seconds), address, str(port)]
    if source is not None:
        return inside(source, *command).stdout
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=False
    )
    return done.stdout


def test_two_containers_on_the_default_bridge_reach_each_other(networks: Networks) -> None:
    first, second = (networks.prepare(new_id(), "default") for _ in range(2))
    assert first.endpoints[0].ip != second.endpoints[0].ip
    assert pings(first, second.endpoints[0].ip)
    assert pings(first, first.endpoints[0].gateway)


def test_the_namespace_has_loopback_address_and_default_route(networks: Networks) -> None:
    attachment = networks.prepare(new_id(), "bridge")
    endpoint = attachment.endpoints[0]
    addresses = inside(attachment, "ip", "-o", "addr").stdout
    assert "inet 127.0.0.1/8" in addresses
    assert f"inet {endpoint.ip}/{endpoint.prefix}" in addresses
    assert "inet6" not in addresses
    assert f"default via {endpoint.gateway} dev eth0" in inside(attachment, "ip", "route").stdout
    assert endpoint.mac in inside(attachment, "ip", "link", "show", "eth0").stdout


def test_none_has_only_loopback_and_host_has_no_namespace(networks: Networks) -> None:
    alone = networks.prepare(new_id(), "none")
    assert [line.split(":")[1].strip() for line in inside(alone, "ip", "-o", "link").stdout.splitlines()] == [
        "lo"
    ]
    assert networks.prepare(new_id(), "host").netns_path is None


def test_container_mode_joins_the_others_namespace(networks: Networks) -> None:
    first = networks.prepare(new_id(), "bridge")
    second = networks.prepare(new_id(), f"container:{first.container_id}")
    assert second.netns_path == first.netns_path
    networks.release(second.container_id)
    assert pings(first, first.endpoints[0].gateway)
    with pytest.raises(Conflict, match="cannot join network of a non running container"):
        networks.prepare(new_id(), f"container:{new_id()}")


def test_release_leaves_nothing(networks: Networks, place: Place) -> None:
    container_id = new_id()
    attachment = networks.prepare(container_id, "bridge", port_bindings={"80/tcp": [PortBinding()]})
    rules = subprocess.run(
        ["nft", "list", "table", "ip", f"tft{place.unique}"], capture_output=True, text=True
    )
    assert attachment.endpoints[0].ip in rules.stdout
    networks.release(container_id)
    networks.release(container_id)
    rules = subprocess.run(
        ["nft", "list", "table", "ip", f"tft{place.unique}"], capture_output=True, text=True
    )
    assert attachment.endpoints[0].ip not in rules.stdout
    assert attachment.endpoints[0].host_interface not in interfaces()
    assert list((place.directory / "run" / "netns").iterdir()) == []
    assert list((place.directory / "run" / "attachments").iterdir()) == []


def test_published_ports(networks: Networks) -> None:
    server = networks.prepare(
        new_id(),
        "bridge",
        port_bindings={"80/tcp": [PortBinding()], "81/tcp": [PortBinding("127.0.0.1", "")]},
    )
    client = networks.prepare(new_id(), "bridge")
    everywhere, loopback = (item.host_port for item in server.ports)
    gateway = server.endpoints[0].gateway
    with Listener(server, 80), Listener(server, 81):
        assert ask("127.0.0.1", everywhere) == "hi"
        assert ask(gateway, everywhere) == "hi"
        assert ask("127.0.0.1", loopback) == "hi"
        assert ask(gateway, loopback, seconds=1) == ""
        assert ask(gateway, everywhere, client) == "hi"
        assert ask(gateway, everywhere, server) == "hi"


def test_a_port_is_given_once(networks: Networks) -> None:
    first = networks.prepare(new_id(), "bridge", port_bindings={"80/tcp": [PortBinding()]})
    port = first.ports[0].host_port
    wanted = {"80/tcp": [PortBinding("", str(port))]}
    with pytest.raises(ServerError, match=f"Bind for 0.0.0.0:{port} failed: port is already allocated"):
        networks.prepare(new_id(), "bridge", port_bindings=wanted)
    networks.release(first.container_id)
    assert networks.prepare(new_id(), "bridge", port_bindings=wanted).ports[0].host_port == port


def test_user_defined_network_and_fixed_address(networks: Networks, place: Place) -> None:
    subnet = a_subnet()
    prefix = subnet.removesuffix("0/24")
    networks.create(place.request("n2", subnet=subnet, gateway=f"{prefix}1"))
    fixed = {"n2": EndpointConfig(ipv4_address=f"{prefix}8")}
    attachment = networks.prepare(new_id(), "n2", fixed, name="/web")
    assert attachment.endpoints[0].ip == f"{prefix}8"
    assert attachment.endpoints[0].aliases[0] == "web"
    with pytest.raises(Forbidden, match="Address already in use"):
        networks.prepare(new_id(), "n2", fixed)
    assert networks.prepare(new_id(), "n2").endpoints[0].ip == f"{prefix}2"
    with pytest.raises(Forbidden, match="Pool overlaps with other one on this address space"):
        networks.create(place.request("n3", subnet=f"{prefix}128/25"))
    with pytest.raises(Conflict, match="network with name n2 already exists"):
        networks.create(place.request("n2"))
    networks.create(place.request("auto", subnet=""))
    with pytest.raises(BadRequest, match="only when connecting to networks with user configured subnets"):
        networks.prepare(new_id(), "auto", {"auto": EndpointConfig(ipv4_address=f"{prefix}9")})


def test_networks_are_apart_until_connected(networks: Networks, place: Place) -> None:
    for name in ("left", "right"):
        networks.create(place.request(name))
    left, right = networks.prepare(new_id(), "left"), networks.prepare(new_id(), "right")
    assert cut_off(left, right.endpoints[0].ip)
    added = networks.connect(left.container_id, "right")
    assert added.interface == "eth1"
    assert pings(left, right.endpoints[0].ip)
    with pytest.raises(Forbidden, match="already exists in network right"):
        networks.connect(left.container_id, "right")
    networks.disconnect(left.container_id, "right")
    assert cut_off(left, right.endpoints[0].ip)
    with pytest.raises(Forbidden, match="has active endpoints"):
        networks.remove("left")
    networks.disconnect(left.container_id, "left")
    networks.remove("left")
    with pytest.raises(NotFound, match="network left not found"):
        networks.get("left")


def test_an_internal_network_has_no_way_out(networks: Networks, place: Place) -> None:
    networks.create(place.request("closed", internal=True))
    first, second = (networks.prepare(new_id(), "closed") for _ in range(2))
    assert pings(first, second.endpoints[0].ip)
    assert "default" not in inside(first, "ip", "route").stdout


def test_icc_off_keeps_containers_apart(networks: Networks, place: Place) -> None:
    options = {"com.docker.network.bridge.enable_icc": "false"}
    networks.create(place.request("quiet", options=options))
    first, second = (networks.prepare(new_id(), "quiet") for _ in range(2))
    assert cut_off(first, second.endpoints[0].ip)


def test_a_successor_goes_on_and_cleans_up(place: Place) -> None:
    before = place.open()
    before.create(place.request("kept"))
    stays = before.prepare(new_id(), "kept", port_bindings={"80/tcp": [PortBinding()]})
    dies = before.prepare(new_id(), "bridge")
    before.close()  # as after kill -9: the kernel keeps everything

    after = place.open()
    assert after.attachment(stays.container_id) == stays
    assert after.reconcile({stays.container_id}) == [dies.container_id]
    assert dies.endpoints[0].host_interface not in interfaces()
    with Listener(stays, 80):
        assert ask("127.0.0.1", stays.ports[0].host_port) == "hi"
    newcomer = after.prepare(new_id(), "kept")
    assert newcomer.endpoints[0].ip != stays.endpoints[0].ip
    assert pings(newcomer, stays.endpoints[0].ip)


def test_preparing_twice_starts_anew(networks: Networks) -> None:
    container_id = new_id()
    networks.prepare(container_id, "bridge")
    again = networks.prepare(container_id, "bridge")
    assert pings(again, again.endpoints[0].gateway)


def test_inspect(networks: Networks) -> None:
    container_id = new_id()
    attachment = networks.prepare(
        container_id,
        "bridge",
        name="web",
        port_bindings={"80/tcp": [PortBinding()]},
        exposed=["80/tcp", "99/udp"],
    )
    settings = attachment.to_api()
    assert settings["IPAddress"] == settings["Networks"]["bridge"]["IPAddress"] == attachment.endpoints[0].ip
    assert settings["Ports"]["99/udp"] is None
    assert settings["Ports"]["80/tcp"] == [
        {"HostIp": "0.0.0.0", "HostPort": str(attachment.ports[0].host_port)}
    ]
    bridge = networks.get("bridge")
    shown = bridge.to_api(networks.containers(bridge.id))
    assert shown["Containers"][container_id]["Name"] == "web"
    assert shown["IPAM"]["Config"] == [{"Subnet": bridge.subnet, "Gateway": bridge.gateway}]


UPSTREAM = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 53))
print('ready', flush=True)
while True:
    q, peer = s.recvfrom(4096)
    answer = b'\\xc0\\x0c\\x00\\x01\\x00\\x01\\x00\\x00\\x00\\x3c\\x00\\x04\\xcb\\x00\\x71\\x07'
    s.sendto(q[:2] + b'\\x81\\x80\\x00\\x01\\x00\\x01\\x00\\x00\\x00\\x00' + q[12:] + answer, peer)
"""


def lookup(source: Attachment, name: str, server: str) -> list[str]:
    """The addresses in nslookup's answer."""
    done = inside(source, "busybox", "nslookup", "-type=a", name, server)
    answers = done.stdout.partition("\n\n")[2]
    return [line.split()[-1] for line in answers.splitlines() if line.startswith("Address")]


def test_names_resolve_on_a_user_defined_network_only(networks: Networks, place: Place) -> None:
    for name in ("front", "back"):
        networks.create(place.request(name))
    web = networks.prepare(
        new_id(), "front", {"front": EndpointConfig(aliases=("www",))}, name="web", dns=["127.0.0.1"]
    )
    database = networks.prepare(new_id(), "back", name="Database")
    server = web.nameserver
    for name in ("web", "www", "WEB", web.container_id[:12]):
        assert lookup(web, name, server) == [web.endpoints[0].ip], name
    networks.connect(web.container_id, "back")
    assert lookup(web, "database", server) == [database.endpoints[0].ip]
    reverse = inside(web, "busybox", "nslookup", web.endpoints[0].ip, server)
    assert "web.front" in reverse.stdout
    networks.release(database.container_id)
    assert lookup(web, "database", server) == []
    assert networks.prepare(new_id(), "bridge").nameserver == ""


def test_other_names_go_to_the_containers_own_servers(networks: Networks, place: Place) -> None:
    networks.create(place.request("front"))
    upstream = networks.prepare(new_id(), "bridge")
    asker = networks.prepare(new_id(), "front", dns=[upstream.endpoints[0].ip])
    process = subprocess.Popen(
        ["nsenter", f"--net={upstream.netns_path}", "python3", "-c", UPSTREAM], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert lookup(asker, "example.org", asker.nameserver) == ["203.0.113.7"]
    finally:
        process.kill()
        process.communicate()


def test_a_network_without_free_addresses(networks: Networks, place: Place) -> None:
    networks.create(place.request("tiny", subnet=a_subnet(30)))
    networks.prepare(new_id(), "tiny")
    with pytest.raises(BadRequest, match="no available IPv4 addresses on this network's address pools: tiny"):
        networks.prepare(new_id(), "tiny")


def test_a_failed_start_gives_everything_back(networks: Networks, place: Place) -> None:
    networks.create(place.request("front"))
    busy = networks.prepare(new_id(), "bridge", port_bindings={"1/tcp": [PortBinding()]}).ports[0].host_port
    bridge = Path("/sys/class/net", networks.get("front").bridge, "brif")
    assert list(bridge.iterdir()) == []
    before = loose_ends()
    container_id = new_id()
    bindings = {"80/tcp": [PortBinding()], "81/tcp": [PortBinding("", str(busy))]}
    with pytest.raises(ServerError):
        networks.prepare(container_id, "front", port_bindings=bindings)
    assert networks.attachment(container_id) is None
    assert container_id not in {path.name for path in (place.directory / "run" / "netns").iterdir()}
    assert list(bridge.iterdir()) == []
    deadline = time.monotonic() + 60
    while loose_ends() - before:  # others may be plugging theirs in
        assert time.monotonic() < deadline, loose_ends() - before
        time.sleep(0.1)
    networks.remove("front")
