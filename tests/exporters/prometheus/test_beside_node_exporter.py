"""Our host series beside those of a real Node Exporter on the same host."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from held_port import hold_port
from prometheus_client.parser import text_string_to_metric_families

from collector.host.collection import HostGroups
from collector.host.groups import BUILTIN
from collector.roots import Roots
from exporters.prometheus.node_page import NodePage

#: What Debian's package presets otherwise than Node Exporter itself; information on CPUs it has on demand.
FLAGS = (
    "--collector.cpu.info",
    "--no-collector.systemd",
    "--collector.netdev.device-exclude=^$",
    "--collector.filesystem.mount-points-exclude"
    "=^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)",
    "--collector.diskstats.device-exclude=^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\\d+n\\d+p)\\d+$",
    # Node Exporter 1.9's choice; Debian 12 has 1.5, which leaves out the two counters of the receive queue.
    "--collector.netstat.fields=^(.*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|"
    "Icmp6?_(InMsgs|OutMsgs)|TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts|TCPOFOQueue|TCPRcvQDrop)|"
    "Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab)|"
    "Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))$",
)
#: Collectors it has by default and we do not, and why.
NOT_OURS = {
    "bcache": "a cache of block devices few hosts have",
    "btrfs": "allocation inside one kind of file system; sizes and use are in filesystem",
    "fibrechannel": "adapters of storage networks",
    "infiniband": "adapters of clusters",
    "ipvs": "a load balancer's tables",
    "nfs": "calls by kind, of NFS clients",
    "nfsd": "calls by kind, of NFS servers",
    "nvme": "firmware versions",
    "rapl": "energy counters only root may read, since they leak keys",
    "tapestats": "tapes",
    "textfile": "what others wrote for Node Exporter is served by Node Exporter",
    "xfs": "allocation inside one kind of file system; sizes and use are in filesystem",
    "zfs": "allocation inside one kind of file system; sizes and use are in filesystem",
}
#: Series of the collectors above, and of Go's.
NOT_OURS_SERIES = ("go_", "process_", "promhttp_", "node_textfile_", "node_xfs_", "node_btrfs_", "node_zfs_")
#: A recorded host with the hardware that the host of the test has not.
RECORDED = Path(__file__).parents[2] / "fixtures" / "host"
#: Of the recorded host, what Debian 12's Node Exporter 1.5 does not read: from 1.6 on, or by netlink only.
NEWER = (
    "node_cpu_scaling_governor",
    "node_network_receive_nohandler_total",
    "node_pressure_irq_stalled_seconds_total",
)
#: Read from the running kernel by both.
LIVE = ("time", "timex", "filesystem", "uname", "selinux")
#: Differ by nature.
OWN = ("node_scrape_collector_duration_seconds", "node_exporter_build_info")
ROUNDS = 200

Key = tuple[str, frozenset[tuple[str, str]]]


class Page(NamedTuple):
    kinds: dict[str, str]
    values: dict[Key, float]


def parse(text: str) -> Page:
    kinds, values = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            kinds[name] = kind
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = frozenset((key, value) for key, value in sample.labels.items() if value)
            if not sample.name.startswith(NOT_OURS_SERIES) and sample.labels.get("collector") not in NOT_OURS:
                values[sample.name, labels] = sample.value
    return Page(kinds, values)


@pytest.fixture(scope="module")
def exporter() -> Iterator[http.client.HTTPConnection]:
    with running(*FLAGS) as connection:
        yield connection


@contextlib.contextmanager
def running(*flags: str) -> Iterator[http.client.HTTPConnection]:
    """A Node Exporter, and a connection to it."""
    held = hold_port()
    port = held.getsockname()[1]
    process = subprocess.Popen(
        ["prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{port}", *flags],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # One connection all the time, or it would show in the numbers of sockets of theirs alone.
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                fetch(connection)
                break
            except OSError:
                connection.close()
                assert process.poll() is None, "prometheus-node-exporter ended"
                assert time.monotonic() < deadline, "prometheus-node-exporter did not answer"
                time.sleep(0.05)
        yield connection
    finally:
        connection.close()
        process.terminate()
        process.wait()
        held.close()


def fetch(connection: http.client.HTTPConnection) -> str:
    connection.request("GET", "/metrics")
    text: str = connection.getresponse().read().decode()
    return text


@pytest.fixture(scope="module")
def page() -> NodePage:
    return NodePage(HostGroups(), "1.2.3")


class Compared(NamedTuple):
    before: Page
    ours: Page
    after: Page


def compare(connection: http.client.HTTPConnection, page: NodePage) -> Compared:
    before = parse(fetch(connection))
    ours = parse(page.render().decode())
    return Compared(before, ours, parse(fetch(connection)))


def test_every_series_is_there_and_no_other(exporter: http.client.HTTPConnection, page: NodePage) -> None:
    # Interfaces and mounts of others come and go meanwhile: a series has to be missing in every round.
    missing: set[Key] | None = None
    extra: set[Key] | None = None
    for _ in range(20):
        theirs, ours, again = compare(exporter, page)
        names_only = {key for key in ours.values if key[0] in OWN}
        lacking = (theirs.values.keys() & again.values.keys()) - ours.values.keys()
        lacking = {key for key in lacking if key[0] not in OWN}
        surplus = ours.values.keys() - theirs.values.keys() - again.values.keys() - names_only
        missing = lacking if missing is None else missing & lacking
        extra = surplus if extra is None else extra & surplus
        if not missing and not extra:
            break
    assert missing == set()
    assert extra == set()
    for name in OWN:  # a label without a value is none
        assert label_names(ours, name) - {"revision"} == label_names(theirs, name) - {"revision"}


def label_names(page: Page, name: str) -> set[str]:
    return {label for family, labels in page.values if family == name for label, _ in labels}


def test_types_are_the_same(exporter: http.client.HTTPConnection, page: NodePage) -> None:
    theirs, ours, _ = compare(exporter, page)
    common = theirs.kinds.keys() & ours.kinds.keys()
    assert len(common) > 150
    assert {name: ours.kinds[name] for name in common} == {name: theirs.kinds[name] for name in common}


def test_values_are_the_same(exporter: http.client.HTTPConnection, page: NodePage) -> None:
    unseen: set[Key] | None = None
    last: dict[Key, tuple[float, float, float]] = {}
    for _ in range(ROUNDS):
        theirs, ours, again = compare(exporter, page)
        keys = theirs.values.keys() & ours.values.keys() & again.values.keys()
        # The kernel takes iowait back at times; each shows the highest value it has seen itself.
        keys = {key for key in keys if key[0] not in OWN and ("mode", "iowait") not in key[1]}
        for key in keys:
            was, is_, then = theirs.values[key], ours.values[key], again.values[key]
            last[key] = was, is_, then
            if ours.kinds[key[0]] == "counter" and was <= then:
                assert between(was, is_, then), f"{key}: {was}, ours {is_}, {then}"
        if unseen is None:
            unseen = keys
        # A gauge that goes up and down all the time is between theirs sooner or later.
        unseen = {key for key in unseen & keys if not between(*last[key])}
        if not unseen:
            break
    assert {key: last[key] for key in unseen or ()} == {}


def between(was: float, is_: float, then: float) -> bool:
    """Whether ours is between theirs, apart from the last bit: they multiply where we divide."""
    slack = abs(is_) * 1e-12
    return min(was, then) - slack <= is_ <= max(was, then) + slack


def test_a_recorded_host_has_the_same_series_with_the_same_values() -> None:
    flags = (
        f"--path.procfs={RECORDED / 'proc'}",
        f"--path.sysfs={RECORDED / 'sys'}",
        f"--path.rootfs={RECORDED / 'root'}",
        f"--path.udev.data={RECORDED / 'root/run/udev/data'}",
        "--no-collector.netdev.netlink",
        *(f"--no-collector.{name}" for name in LIVE),
    )
    with running(*FLAGS, *flags) as connection:
        theirs = parse(fetch(connection))
    roots = Roots(RECORDED / "proc", RECORDED / "sys", RECORDED / "root")
    groups = HostGroups(roots, ["all", *(f"-{name}" for name in LIVE)])
    ours = parse(NodePage(groups).render().decode())
    assert groups.failures == {}
    expected = {key: value for key, value in theirs.values.items() if key[0] not in OWN}
    found = {key: value for key, value in ours.values.items() if key[0] not in (*OWN, *NEWER)}
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, rel=1e-12)
    assert {ours.kinds[name] == theirs.kinds[name] for name, _ in expected} == {True}
    assert len(expected) > 300


def test_the_collectors_we_lack_are_the_ones_listed(
    exporter: http.client.HTTPConnection, page: NodePage
) -> None:
    collectors = {
        sample.labels["collector"]
        for family in text_string_to_metric_families(fetch(exporter))
        if family.name == "node_scrape_collector_success"
        for sample in family.samples
    }
    assert collectors - BUILTIN.keys() == NOT_OURS.keys()
    assert BUILTIN.keys() <= collectors


def test_promtool_finds_what_it_finds_in_node_exporters(
    exporter: http.client.HTTPConnection, page: NodePage, tmp_path: Path
) -> None:
    theirs = promtool(fetch(exporter))
    ours = promtool(page.render().decode())
    assert ours <= theirs


def promtool(text: str) -> set[str]:
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert done.returncode in (0, 3), done.stderr  # 3: findings of style, none of format
    return set(done.stderr.splitlines())
