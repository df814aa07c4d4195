"""What lanes read, on the page: under the container's labels, with its end, and at no cost while nothing changes."""

from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from collector.container import Container
from collector.discovery.registry import Containers
from collector.lanes.board import Board, Reading
from collector.lanes.groups import choose, make
from collector.lanes.lane import Lane
from collector.roots import Roots
from collector.sampler import Sampler
from exporters.prometheus.exposition import Exposition
from exporters.prometheus.families import FAMILIES
from exporters.prometheus.lane_metrics import lane_metrics
from exporters.prometheus.self_metrics import SelfMetrics

FIXTURES = Path(__file__).parents[2] / "fixtures"
ID = "4f" * 32
WEB = Container(id=ID, name="web", engine="docker", pid=4242, cgroup=f"/docker/{ID}", network_mode="bridge")
STATE = "container_network_tcp_usage_total"
SEGMENTS = "container_netstat_Tcp_OutSegs"


class Page:
    def __init__(self, **options: int) -> None:
        self.board = Board()
        self.containers = Containers()
        roots = Roots(*(FIXTURES / "v1" / part for part in ("proc", "sys", "root")))
        self.sampler = Sampler(self.containers, roots)
        self.exposition = Exposition(self.containers, self.sampler, board=self.board, **options)
        self.containers.update(WEB)

    def lines(self, *names: str) -> list[str]:
        text = self.exposition.render(names=names).decode()
        return [line for line in text.splitlines() if not line.startswith("#")]


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page()
    yield page
    page.sampler.close()


def reading(state: str, value: float) -> Reading:
    return Reading(STATE, (("tcp_state", state),), value)


def test_readings_stand_behind_the_containers_labels(page: Page) -> None:
    page.board.put(ID, "tcp", [reading("listen", 3), reading("closewait", 0)])
    assert page.lines(STATE) == [
        f'{STATE}{{id="/docker/{ID}",name="web",tcp_state="listen"}} 3',
        f'{STATE}{{id="/docker/{ID}",name="web",tcp_state="closewait"}} 0',
    ]


def test_values_are_those_of_the_newest_reading(page: Page) -> None:
    page.board.put(ID, "tcp", [reading("listen", 3)])
    page.lines()
    plan = page.exposition._plan
    page.board.put(ID, "tcp", [reading("listen", 4)])
    assert page.lines(STATE)[0].endswith(" 4")
    page.lines()
    assert page.exposition._plan is plan  # the same series: nothing was laid out again


def test_series_come_and_go_with_the_readings(page: Page) -> None:
    page.board.put(ID, "tcp", [reading("listen", 3)])
    page.board.put(ID, "netstat", [Reading(SEGMENTS, (), 7)])
    page.lines()
    page.board.put(ID, "tcp", [reading("listen", 3), reading("synsent", 1)])
    assert len(page.lines(STATE)) == 2
    page.board.drop(ID, "tcp")
    assert page.lines(STATE) == []
    assert len(page.lines(SEGMENTS)) == 1


def test_after_the_end_what_was_counted_stays_and_what_was_used_goes(page: Page) -> None:
    page.board.put(ID, "tcp", [reading("listen", 3)])
    page.board.put(
        ID, "netstat", [Reading(SEGMENTS, (), 7), Reading("container_netstat_Tcp_CurrEstab", (), 2)]
    )
    page.containers.update(replace(WEB, state="exited", pid=0, exit_code=0))
    page.board.ended(ID)
    lines = page.lines()
    assert [line for line in lines if line.startswith("container_netstat")] == [
        f'{SEGMENTS}{{id="/docker/{ID}",name="web"}} 7'
    ]
    assert not page.lines(STATE)


def test_a_family_the_table_does_not_have_is_left_off_and_said(
    page: Page, caplog: pytest.LogCaptureFixture
) -> None:
    page.board.put(
        ID, "tcp", [reading("listen", 3), Reading("container_other", (), 1), reading("synsent", 5)]
    )
    with caplog.at_level(logging.ERROR):
        assert [line.rpartition(" ")[2] for line in page.lines(STATE)] == ["3", "5"]
        page.lines()
    assert [record.getMessage() for record in caplog.records] == [
        "readings of container_other are left off /metrics: the table has no such family"
    ]


def test_time_by_cpu_stands_in_the_place_of_the_sum() -> None:
    """On v1, where it was asked for; never both, or sums would be double."""
    containers = Containers()
    roots = Roots(*(FIXTURES / "v1" / part for part in ("proc", "sys", "root")))
    sampler = Sampler(containers, roots, per_cpu=True)
    containers.update(WEB)
    lines = Exposition(containers, sampler).render(names=["container_cpu_usage_seconds_total"]).decode()
    sampler.close()
    assert re.findall(r'name="web",cpu="(\w+)"', lines) == ["cpu00", "cpu01"]


def test_labels_are_escaped(page: Page) -> None:
    page.board.put(ID, "tcp", [reading('a"b\n', 1)])
    assert page.lines(STATE)[0].endswith(r'tcp_state="a\"b\n"} 1')


def test_promtool_finds_every_slow_family_sound(page: Page) -> None:
    for row in FAMILIES:
        if row.group == "lane":
            labels = tuple((name, "x") for name in row.varies)
            page.board.put(ID, row.name, [Reading(row.name, labels, 1)])
    run = subprocess.run(
        ["promtool", "check", "metrics"],
        input=page.exposition.render(),
        capture_output=True,
        check=False,
    )
    complaints = [line for line in run.stderr.decode().splitlines() if line]
    # Names that are cAdvisor's or node_exporter's are kept on purpose.
    known = (
        "cadvisor_version_info ",
        "container_cpu_load_d_average_10s ",
        "container_fs_inodes_total ",
        "container_memory_failcnt ",
        "container_hugetlb_failcnt ",
        "container_network_",
        "container_netstat_",
        "container_nf_conntrack_stat_",
    )
    assert [line for line in complaints if not line.startswith(known)] == []


def test_a_lanes_cost_age_and_failures_are_our_own_metrics(page: Page) -> None:
    """The recorded container's namespace cannot be entered: that is a failure, and counted."""
    lane = Lane("counters", page.sampler.targets, page.board, make(Roots(), choose(["tcp", "hugetlb"])))
    own = SelfMetrics()
    own.register(lane_metrics([lane]))
    lane.step()
    text = own.text().decode()
    assert 'taffrail_group_reads_total{group="hugetlb"} 1.0' in text
    assert 'taffrail_group_failures_total{group="tcp"}' in text
    assert 'taffrail_group_interval_seconds{group="tcp"} 30.0' in text
    assert 'taffrail_group_age_seconds{group="hugetlb"}' in text
    assert 'taffrail_group_cut_series_total{group="tcp"} 0.0' in text
