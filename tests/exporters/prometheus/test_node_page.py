"""The host's part of the page, from a recorded host with every kind of hardware."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from collector.host.collection import Collected, HostGroups
from collector.host.group import Column, Series
from collector.roots import Roots
from exporters.prometheus.node_families import NODE_FAMILIES, node_family
from exporters.prometheus.node_page import NodePage, host_metrics

HOST = Path(__file__).parents[2] / "fixtures" / "host"
ROOTS = Roots(HOST / "proc", HOST / "sys", HOST / "root")
#: Read from the kernel that runs the test, not from files: the clock, sizes of file systems, the machine's kind.
LIVE = ("-time", "-timex", "-filesystem", "-uname")


def recorded(*groups: str) -> NodePage:
    return NodePage(HostGroups(ROOTS, groups or ("all", *LIVE)), "1.2.3")


def test_the_page_is_the_golden_one(golden: Callable[[str, bytes], None]) -> None:
    volatile = (b"node_scrape_collector_duration_seconds{", b"node_exporter_build_info{")
    lines = recorded().render().splitlines(keepends=True)
    golden("exposition/node.prom", b"".join(line for line in lines if not line.startswith(volatile)))


def test_every_family_of_the_table_is_on_some_page() -> None:
    text = recorded("all").render().decode() + NodePage(HostGroups()).render().decode()
    found = {node_family(family).help for family in names(text)}
    patterns = {node_family(family.name).help for family in NODE_FAMILIES if "*" not in family.name}
    assert patterns <= found


def names(text: str) -> set[str]:
    return {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}


def test_no_series_is_there_twice_and_no_family_in_two_places() -> None:
    text = recorded("all").render().decode()
    types = [line for line in text.splitlines() if line.startswith("# TYPE ")]
    series = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(types) == len(set(types))
    assert len(series) == len(set(series))
    assert list(text_string_to_metric_families(text))


def test_promtool_has_nothing_against_it_but_the_names_of_the_originals() -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=recorded("all").render(), capture_output=True, check=False
    )
    complaints = [line for line in done.stderr.decode().splitlines() if "'camelCase'" not in line]
    assert {line.split()[0] for line in complaints} <= {
        "node_entropy_available_bits",
        "node_entropy_pool_size_bits",
        "node_hwmon_temp_crit_alarm_celsius",
    }


def test_only_the_named_families_are_rendered() -> None:
    assert names(recorded().render(("node_load1", "node_md_state")).decode()) == {
        "node_load1",
        "node_md_state",
    }


def test_groups_that_are_switched_off_are_not_there() -> None:
    page = recorded("loadavg", "cpu")
    assert {name.split("_")[1] for name in names(page.render().decode())} <= {
        "load1",
        "load5",
        "load15",
        "cpu",
        "scrape",
        "exporter",
    }
    assert NodePage(HostGroups(ROOTS, ())).render() == b""


def test_a_group_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no group of host counters 'netsat'; did you mean 'netstat'\?"):
        HostGroups(ROOTS, ["netsat"])


def test_a_group_that_fails_costs_the_others_nothing_and_is_counted(tmp_path: Path) -> None:
    (tmp_path / "loadavg").write_text("not three\n")
    (tmp_path / "meminfo").write_text("MemTotal:  4 kB\n")
    groups = HostGroups(Roots(tmp_path, tmp_path, tmp_path), ["loadavg", "meminfo", "arp"])
    page = NodePage(groups)
    lines = page.render().decode().splitlines()
    assert 'node_scrape_collector_success{collector="loadavg"} 0' in lines
    assert 'node_scrape_collector_success{collector="meminfo"} 1' in lines
    assert "node_memory_MemTotal_bytes 4096" in lines
    assert groups.failures == {"loadavg": 1}  # a host without ARP is not a failure
    told = {family.name: family.series for family in host_metrics(groups, page)()}
    assert told["taffrail_host_failures_total"] == [(("loadavg",), 1)]
    assert told["taffrail_host_series"] == [((), page.series)] == [((), 8)]


def test_lines_of_devices_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    groups = HostGroups(Roots(tmp_path, tmp_path, tmp_path), ["arp"])
    page = NodePage(groups)
    (tmp_path / "net").mkdir()
    for number in range(200):
        (tmp_path / "net/arp").write_text(f"IP HW Flags HW Mask Device\n10.0.0.1 1 2 aa * veth{number}\n")
        assert f'node_arp_entries{{device="veth{number}"}} 1' in page.render().decode()
    assert len(page._families["node_arp_entries"].lines) < 30


def test_what_is_kept_of_a_family_is_never_older_than_its_series() -> None:
    names = (("lo",), ("eth0",))
    read: list[Series | Column] = [
        Column(names, (1, 2)),
        Column(names, (1, 2)),
        [(names[0], 1), (names[1], 2)],  # netlink refused, files have the same
        [(names[0], 1), (names[1], 3)],
        [(names[1], 3)],
        [(names[1], 3)],
        Column(names, (1, 2)),
        Column(names, (1, 2)),
        [(names[0], 1), (names[1], 3)],
    ]

    class Groups(HostGroups):
        def read(self, only: Collection[str] = ()) -> list[Collected]:
            return [Collected("netdev", {"node_network_mtu_bytes": read[0]}, 0.0, True)]

    page = NodePage(Groups(groups=[]))
    while read:
        lines = page.render(["node_network_mtu_bytes"]).decode().splitlines()
        assert lines[2:] == [
            f'node_network_mtu_bytes{{device="{name}"}} {value}' for (name,), value in read[0]
        ]
        del read[0]


@pytest.mark.parametrize(
    "bad", [[(("lo", "eth0"), 1)], Column([("lo", "eth0")], [1]), Column([("lo",)], [1, 2])]
)
def test_series_that_cannot_be_written_never_leave_the_text_of_those_before(bad: Series | Column) -> None:
    good = Column([("lo",)], [1])
    read: list[Series | Column] = [good]

    class Groups(HostGroups):
        def read(self, only: Collection[str] = ()) -> list[Collected]:
            return [Collected("netdev", {"node_network_mtu_bytes": read[0]}, 0.0, True)]

    page = NodePage(Groups(groups=[]))
    whole = page.render(["node_network_mtu_bytes"])
    read[0] = bad
    for _ in range(2):
        with pytest.raises(ValueError, match=r"zip|attempt to assign"):
            page.render(["node_network_mtu_bytes"])
    read[0] = good
    assert page.render(["node_network_mtu_bytes"]) == whole
