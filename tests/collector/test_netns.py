from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from collector.netlink import LinkCounters
from collector.netns import Namespace, parse_net_dev
from collector.sample import Interface
from tests.collector.conftest import eventually

HEAD = b"Inter-|   Receive  |  Transmit\n face |bytes ...|bytes ...\n"
READY = "import sys\nprint('ready', flush=True)\nsys.stdin.read()\n"


def test_counters_without_loopback_and_host_ends() -> None:
    rows = b"".join(
        b"%s 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n" % name
        for name in (b"lo:", b"eth0:", b"veth12:", b"docker0:", b"nerdctl0:", b"lowpan0:")
    )
    assert [interface.name for interface in parse_net_dev(HEAD + rows)] == ["eth0", "lowpan0"]
    assert parse_net_dev(HEAD + rows)[0] == Interface("eth0", 1, 2, 3, 4, 5, 6, 7, 8)


def test_a_number_glued_to_the_colon() -> None:
    line = b"eth0:123456789012 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n"
    assert parse_net_dev(HEAD + line) == (Interface("eth0", 123456789012, 2, 3, 4, 5, 6, 7, 8),)


def test_a_short_line_is_named() -> None:
    with pytest.raises(ValueError, match="expected an interface and 16 numbers"):
        parse_net_dev(HEAD + b"eth0: 1 2 3\n")


def ping_pair(made: Any) -> tuple[int, str]:
    """A process in its own network namespace with a veth to ours; its pid and our end's name."""
    process = made.python(READY, "unshare", "-n")
    assert process.stdout.readline() == b"ready\n"
    name = f"tt{uuid.uuid4().hex[:8]}"
    for command in (
        f"ip link add {name} type veth peer name eth0 netns {process.pid}",
        f"ip link set {name} up",
        f"nsenter -t {process.pid} -n ip addr add 10.255.7.2/24 dev eth0",
        f"nsenter -t {process.pid} -n ip link set eth0 up",
    ):
        subprocess.run(command.split(), check=True)
    shown = f"nsenter -t {process.pid} -n ip link show eth0".split()
    # What is sent before the kernel has noticed the carrier is lost.
    eventually(lambda: b"state UP" in subprocess.run(shown, capture_output=True, check=True).stdout)
    return process.pid, name


def counters(interfaces: tuple[Interface, ...]) -> list[tuple[str, int, int, int, int]]:
    return [(i.name, i.rx_bytes, i.rx_packets, i.tx_bytes, i.tx_packets) for i in interfaces]


def test_the_hosts_ends_tell_the_same_as_the_file(make_cgroup: Any) -> None:
    pid, name = ping_pair(make_cgroup())
    links = LinkCounters()
    namespace, plain = Namespace(Path("/proc"), pid), Namespace(Path("/proc"), pid)
    try:
        first = namespace.read(links.read())  # finds the peers
        assert namespace.by_peers
        send = "import socket as s; k = s.socket(s.AF_INET, s.SOCK_DGRAM); k.setsockopt(1, 6, 1)\n"
        send += "for _ in range(7): k.sendto(b'x' * 100, ('10.255.7.255', 9))"
        subprocess.run(["nsenter", "-t", str(pid), "-n", sys.executable, "-S", "-c", send], check=True)
        for _ in range(1000):  # both are read while nothing else is sent, or again
            by_host, by_file = namespace.read(links.read()), plain.read()
            if counters(by_host) == counters(by_file):
                break
        assert counters(by_host) == counters(by_file)
        assert by_host[0].tx_packets >= first[0].tx_packets + 7
        assert by_host[0].tx_bytes >= first[0].tx_bytes + 700
        subprocess.run(["ip", "link", "del", name], check=True)
        assert namespace.read(links.read()) == ()  # noticed at once, not at the tenth time
    finally:
        namespace.close()
        plain.close()
        links.close()


def test_an_interface_that_came_is_looked_for_when_told(make_cgroup: Any) -> None:
    pid, name = ping_pair(make_cgroup())
    links = LinkCounters()
    namespace = Namespace(Path("/proc"), pid)
    try:
        namespace.read(links.read())
        add = f"ip link add {name}b type veth peer name eth1 netns {pid}"
        subprocess.run(add.split(), check=True)
        assert [one.name for one in namespace.read(links.read())] == ["eth0"], "it costs less"
        namespace.look_again()
        assert [one.name for one in namespace.read(links.read())] == ["eth0", "eth1"]
    finally:
        namespace.close()
        links.close()


def test_a_namespace_is_not_kept_alive_by_watching_it(make_cgroup: Any) -> None:
    made = make_cgroup()
    pid, name = ping_pair(made)
    links = LinkCounters()
    namespace = Namespace(Path("/proc"), pid)
    try:
        namespace.read(links.read())
        made.end()
        gone = Path("/sys/class/net") / name
        eventually(lambda: not gone.exists())  # the kernel takes the namespace down in the background
        with pytest.raises(OSError, match="No such"):
            namespace.read(links.read())
    finally:
        namespace.close()
        links.close()


def test_a_link_to_a_third_namespace_is_read_from_the_file(make_cgroup: Any) -> None:
    """An interface index of another namespace must not be taken for one of the host's."""
    made = make_cgroup()
    first, second = (made.python(READY, "unshare", "-n") for _ in range(2))
    for process in (first, second):
        assert process.stdout.readline() == b"ready\n"
    subprocess.run(
        f"nsenter -t {first.pid} -n ip link add eth0 type veth peer name eth0 netns /proc/{second.pid}/ns/net".split(),
        check=True,
    )
    links = LinkCounters()
    namespace = Namespace(Path("/proc"), first.pid)
    try:
        assert [interface.name for interface in namespace.read(links.read())] == ["eth0"]
        assert not namespace.by_peers
    finally:
        namespace.close()
        links.close()


def test_the_process_must_exist(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileNotFoundError):
        Namespace(tmp_path, 1)
    (tmp_path / "1").mkdir()
    with pytest.raises(FileNotFoundError):
        Namespace(tmp_path, 1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
