"""What netlink tells of interfaces is what their files say, in a namespace with one of each kind."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from collector.host.group import Files
from collector.host.groups import linked
from collector.host.groups.interfaces import netclass_files, netdev_files
from collector.host.links import HostLinks
from collector.roots import Roots

KINDS = """
set -e
mount -t sysfs sysfs /sys
ip link set lo up
ip link add va type veth peer name vb
ip link set va up
ip link set vb up
ip link add vdown type veth peer name vpeer
ip link add name bri type bridge
ip link set vb master bri
ip link set bri up
ip link add name d0 address 02:00:00:00:00:17 txqueuelen 77 mtu 1400 type ifb
ip link set d0 up promisc on allmulticast on alias 'a "b" c'
ip link set d0 group 7
ip link add name ifb7 type ifb
ip link add name vx0 type vxlan id 4 dstport 4789
ip link set vx0 up
# Not in every kernel.
ip link add link d0 name d0.5 type vlan id 5 && ip link set d0.5 up || true
ip link add link d0 name mv type macvlan mode bridge && ip link set mv up || true
ip link add name gre7 type gre local 127.0.0.1 || true
ip link add nocarrier type bridge
ip link set nocarrier up
ip tuntap add tap0 mode tap
ip tuntap add tun0 mode tun
ip link set tun0 up
ping -c 2 -i 0.01 -W 1 127.0.0.1 >/dev/null 2>&1 || true
exec "$0" -c "$1"
"""
COMPARE = """
import json
from collector.host.group import Files
from collector.host.groups import linked
from collector.host.groups.interfaces import netclass_files, netdev_files
from collector.host.links import HostLinks
from collector.roots import Roots
import subprocess

files, again = Files(Roots()), Files(Roots())
assert linked.ours(files)
readers = ((linked.netclass(files), netclass_files), (linked.netdev(files), netdev_files))
changes = (
    "true", "true", "ip link set va down", "ip link set d0 name d9", "ip link set bri address 02:00:00:00:00:18",
    "ip link del ifb7", "ip link add vx type veth peer name vy", "ip link set d9 promisc off",
)
found = []


# The kernel sends packets of its own and tells of a carrier later: the files are read before and after. What they
# say both times netlink says too, and where they differ it is one of the two or, of a counter, in between.
def compare(change, family, before, told, after):
    first, last = dict(before), dict(after)
    if len(dict(told)) != len(list(told)):
        found.append([change, family, "twice", sorted(told)])
    for labels, value in told:
        known = [values[labels] for values in (first, last) if labels in values]
        if not known or not min(known) <= value <= max(known):
            found.append([change, family, labels, value, known])
    for labels in first.keys() & last.keys() - dict(told).keys():
        found.append([change, family, labels, "not told"])


for change in changes:
    subprocess.run(change.split(), check=True)
    files.begin()
    for ours, theirs in readers:
        again.begin()
        before, told = theirs(again), ours()
        again.begin()
        after = theirs(again)
        assert list(told) in (list(before), list(after))
        for family in told:
            compare(change, family, before.get(family, ()), told[family], after.get(family, ()))
print(json.dumps([found, sorted(device for (device,), _ in netdev_files(files)["node_network_receive_bytes_total"])]))
"""


def test_every_kind_of_interface_has_the_series_its_files_have() -> None:
    command = ["unshare", "-n", "-m", "-p", "-f", "--mount-proc", "sh", "-c", KINDS, sys.executable, COMPARE]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    different, devices = json.loads(done.stdout.splitlines()[-1])
    assert different == []
    assert {"lo", "va", "vb", "vdown", "bri", "d9", "vx0", "nocarrier", "tap0", "tun0", "vx"} <= set(devices)


def test_a_change_of_nothing_is_the_same_object() -> None:
    files = Files(Roots())
    read = linked.netclass(files)
    files.begin()
    first = read()
    for _ in range(50):  # others make and delete interfaces meanwhile
        files.begin()
        again = read()
        if again["node_network_mtu_bytes"] is first["node_network_mtu_bytes"]:
            return
        first = again
    pytest.fail("interfaces that do not change were put together anew each time")


def test_where_netlink_does_not_answer_the_files_are_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_links: HostLinks) -> None:
        raise PermissionError(1, "no sockets here")

    monkeypatch.setattr(HostLinks, "facts", refuse)
    mtu = int(Path("/sys/class/net/lo/mtu").read_text())
    files = Files(Roots())
    read = linked.netclass(files)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            files.begin()
            assert (("lo",), mtu) in list(read()["node_network_mtu_bytes"])
    assert caplog.text.count("cannot ask netlink for the host's interfaces") == 1


def test_an_answer_that_does_not_come_is_an_error() -> None:
    def silent(_protocol: int) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        peers.append(theirs)
        ours.settimeout(0.01)
        return ours

    peers: list[socket.socket] = []
    links = HostLinks(silent)
    with pytest.raises(TimeoutError):
        links.facts()
    peers[0].close()


@pytest.mark.parametrize("proc", ["/proc/1/root/proc", "/nowhere"])
def test_another_hosts_files_are_not_asked_for_by_netlink(proc: str) -> None:
    assert not linked.ours(Files(Roots(Path(proc), Path("/sys"))))


def test_files_and_netlink_give_the_same_families() -> None:
    files = Files(Roots())
    pairs = []
    for _ in range(50):  # others make and delete interfaces meanwhile
        files.begin()
        told = [list(linked.netclass(files)()), list(linked.netdev(files)())]
        files.begin()
        pairs.append((told, [list(netclass_files(files)), list(netdev_files(files))]))
        if told == pairs[-1][1]:
            break
    assert pairs[-1][0] == pairs[-1][1]
