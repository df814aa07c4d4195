"""The lane's clockwork with groups and a clock of the test's own, and a real one in its thread."""

from __future__ import annotations

import asyncio
import errno
import logging
import struct
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from collector.container import Container
from collector.discovery.registry import Containers
from collector.lanes.board import Board, Reading
from collector.lanes.groups import CHOICES, choose, choose_for_cgroups, make
from collector.lanes.lane import Lane
from collector.roots import Roots
from collector.sampler import Sampler
from exporters.prometheus.families import FAMILIES
from tests.collector.conftest import eventually
from tests.collector.lanes.conftest import Running


class Counting:
    """A group that counts how often it reads whom, and costs what it is told to."""

    def __init__(self, clocks: Clocks, name: str = "tcp", seconds: float = 10.0, cost: float = 0.0) -> None:
        self.name = name
        self.seconds = seconds
        self.cost = cost
        self.times: dict[str, list[float]] = {}
        self.forgotten: list[str] = []
        self.error: Exception | None = None
        self._clocks = clocks

    def read(self, target: Any) -> Sequence[Reading]:
        self._clocks.cpu += self.cost
        if self.error is not None:
            raise self.error
        times = self.times.setdefault(target.container.id, [])
        times.append(self._clocks.now)
        return [Reading("family", (("n", "1"),), len(times))]

    def forget(self, container_id: str) -> None:
        self.forgotten.append(container_id)


class Clocks:
    now = 1000.0
    cpu = 0.0


class Opened:
    """A container as the sampler has it open."""

    def __init__(self, name: str) -> None:
        self.container = SimpleNamespace(id=name, name=name)


class Setting:
    """A lane over made-up containers."""

    def __init__(self, *groups: Counting, clocks: Clocks, budget: float = 1.0) -> None:
        self.clocks = clocks
        self.targets: dict[str, Any] = {}
        self.board = Board(keep_seconds=0.0)
        self.lane = Lane(
            "test",
            lambda: dict(self.targets),
            self.board,
            groups,
            budget=budget,
            clock=lambda: clocks.now,
            cpu_clock=lambda: clocks.cpu,
        )

    def start(self, *names: str) -> None:
        for name in names:
            self.targets[name] = Opened(name)

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.lane.step()
            self.clocks.now += 1


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def test_every_container_is_read_at_once_and_then_at_its_interval(clocks: Clocks) -> None:
    group = Counting(clocks, seconds=10)
    setting = Setting(group, clocks=clocks)
    setting.start("a", "b")
    setting.run(100)
    for times in group.times.values():
        assert times[0] == 1000
        gaps = [later - earlier for earlier, later in pairwise(times[1:])]
        assert set(gaps) <= {9.0, 10.0, 11.0}
        assert 9 <= len(times) <= 12


def test_containers_are_spread_over_the_interval(clocks: Clocks) -> None:
    """A hundred that started together are never read together again."""
    group = Counting(clocks, seconds=20)
    setting = Setting(group, clocks=clocks)
    setting.start(*map(str, range(100)))
    setting.run(60)
    late = [time for times in group.times.values() for time in times if time >= 1030]
    assert max(late.count(time) for time in set(late)) <= 10


def test_groups_of_a_container_are_read_together(clocks: Clocks) -> None:
    groups = [Counting(clocks, name, seconds=20) for name in ("tcp", "udp", "sockstat")]
    setting = Setting(*groups, clocks=clocks)
    setting.start(*map(str, range(10)))
    setting.run(90)
    assert groups[0].times == groups[1].times == groups[2].times
    assert len({times[1] for times in groups[0].times.values()}) > 5


def test_without_budget_readings_wait_and_are_late(clocks: Clocks) -> None:
    """Readings of 10 ms of 100 containers every 10 s need 10 % of a core; 2 % are allowed."""
    group = Counting(clocks, seconds=10, cost=0.01)
    setting = Setting(group, clocks=clocks, budget=0.02)
    setting.start(*map(str, range(100)))
    setting.run(500)
    state = setting.lane.groups[0]
    assert state.cpu_seconds <= 0.02 * 500 + 0.3
    assert state.postponed > 0
    assert 30 < state.age(clocks.now) < 120
    read = [len(times) for times in group.times.values()]
    assert len(read) == 100
    assert max(read) - min(read) <= 2  # nobody is forgotten for the others


def test_a_costly_reading_of_one_container_comes_less_often(clocks: Clocks) -> None:
    """A twentieth of a second of CPU every ten seconds would be half a percent of a core."""
    group = Counting(clocks, seconds=10, cost=0.05)
    setting = Setting(group, clocks=clocks)
    setting.start("a")
    setting.run(500)
    assert 8 <= len(group.times["a"]) <= 12


def test_readings_are_on_the_board_under_the_same_keys(clocks: Clocks) -> None:
    setting = Setting(Counting(clocks), clocks=clocks)
    setting.start("a", "b")
    setting.run(1)
    first = setting.board.of("a")["tcp"]
    setting.run(20)
    second = setting.board.of("a")["tcp"]
    assert second.values > first.values
    assert second.keys is first.keys
    assert setting.board.of("b")["tcp"].keys is first.keys
    assert setting.board.value("a", "family", n="1") == second.values[0]
    assert setting.board.value("a", "family", n="2") is None


def test_a_container_that_ends_is_forgotten(clocks: Clocks) -> None:
    group = Counting(clocks)
    setting = Setting(group, clocks=clocks)
    setting.start("a", "b")
    setting.run(1)
    del setting.targets["a"]
    setting.run(1)
    assert group.forgotten == ["a"]
    assert setting.board.of("a")  # its last readings stay as long as its tombstone, which is 0 s here
    setting.run(1)
    assert not setting.board.of("a")
    assert setting.board.of("b")


def test_a_container_that_starts_again_is_read_anew(clocks: Clocks) -> None:
    group = Counting(clocks, seconds=100)
    setting = Setting(group, clocks=clocks)
    setting.start("a")
    setting.run(2)
    setting.start("a")
    setting.run(2)
    assert group.times["a"] == [1000, 1002]
    assert setting.board.of("a")["tcp"].values == (2,)


def test_a_failure_is_counted_logged_once_and_costs_nobody_else(
    clocks: Clocks, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = Counting(clocks, "udp"), Counting(clocks, "tcp")
    setting = Setting(bad, good, clocks=clocks)
    setting.start("a", "b")
    bad.error = PermissionError(errno.EPERM, "Operation not permitted")
    with caplog.at_level(logging.WARNING):
        setting.run(15)
    state = setting.lane.groups[0]
    assert state.failures == 4
    assert [record.getMessage() for record in caplog.records] == [
        "cannot read group udp of container a: [Errno 1] Operation not permitted"
    ]
    assert len(good.times["a"]) == 2


def test_readings_that_fail_for_long_are_taken_away(clocks: Clocks) -> None:
    group = Counting(clocks, seconds=10)
    setting = Setting(group, clocks=clocks)
    setting.start("a")
    setting.run(1)
    group.error = ValueError("snmp: bad")
    setting.run(25)
    assert "tcp" in setting.board.of("a")
    setting.run(25)
    assert "tcp" not in setting.board.of("a")


def test_a_process_that_is_gone_is_no_failure(clocks: Clocks) -> None:
    group = Counting(clocks)
    group.error = ProcessLookupError(errno.ESRCH, "No such process")
    setting = Setting(group, clocks=clocks)
    setting.start("a")
    setting.run(5)
    assert setting.lane.groups[0].failures == 0


async def started(lane: Lane, ready: Callable[[], bool]) -> None:
    task = asyncio.create_task(lane.run())
    await asyncio.to_thread(eventually, ready)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_real_lane_reads_all_default_groups(run: Callable[..., Running]) -> None:
    code = """
listener = socket.create_server(("127.0.0.1", 8080))
caller = socket.create_connection(("127.0.0.1", 8080))
caller.send(b"x")
"""
    container = run(code)
    board = Board()
    groups = make(Roots(), choose(()))
    lane = Lane("test", container.sampler.targets, board, groups, budget=1.0, tick=0.01)
    key = container.container.id
    asyncio.run(started(lane, lambda: board.of(key).keys() == {group.name for group in groups}))
    assert board.value(key, "container_network_tcp_usage_total", tcp_state="listen") == 1
    assert board.value(key, "container_processes") == 1
    assert sum(state.failures for state in lane.groups) == 0


def test_every_family_of_a_group_is_in_the_table_and_every_row_is_read(run: Callable[..., Running]) -> None:
    """But for controllers this host is without (test_controllers.py), and the disk (collector/disk)."""
    code = """
listener = socket.create_server(("127.0.0.1", 8080))
caller = socket.create_connection(("127.0.0.1", 8080))
caller.send(b"x")
"""
    container = run(code)
    rows = {family.name: family for family in FAMILIES if family.group == "lane"}
    elsewhere = {"hugetlb", "memory_numa", "cpuset", "disk"}
    seen = set()
    for group in make(Roots(), CHOICES):
        for family, labels, _ in group.read(container.target):
            assert rows[family].field == group.name
            assert tuple(name for name, _ in labels) == rows[family].varies
            seen.add(family)
    assert {name for name, row in rows.items() if row.field not in elsewhere} - seen == set()


# --- which groups are on ---


def test_the_default_set() -> None:
    assert {"tcp", "udp", "conntrack", "process"} <= set(choose(()))
    assert "advtcp" not in choose(())


@pytest.mark.parametrize("error", [IndexError("list index out of range"), struct.error("short"), KeyError(7)])
def test_what_a_group_was_not_made_for_is_a_failure_and_not_the_end(clocks: Clocks, error: Exception) -> None:
    group, other = Counting(clocks, "tcp"), Counting(clocks, "udp")
    group.error = error
    setting = Setting(group, other, clocks=clocks)
    setting.start("a")
    setting.run(30)
    assert setting.lane.groups[0].failures >= 2
    assert len(other.times["a"]) >= 2


@pytest.mark.parametrize(
    ("words", "with_", "without"),
    [(["+sched"], "sched", "advtcp"), (["-udp", "+advtcp"], "advtcp", "udp"), (["tcp"], "tcp", "udp")],
)
def test_changes_to_it(words: list[str], with_: str, without: str) -> None:
    chosen = choose(words)
    assert with_ in chosen
    assert without not in chosen


@pytest.mark.parametrize(
    ("words", "message"), [(["tpc"], "no group 'tpc'; known are"), (["tcp", "-udp"], "either all names with")]
)
def test_groups_nobody_knows_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose(words)


def test_a_group_of_the_sampling_pass_has_no_interval() -> None:
    assert "percpu" in choose(["+percpu"])
    assert make(Roots(), ["percpu"]) == []
    with pytest.raises(ValueError, match="'percpu': it has none of its own"):
        make(Roots(), ["percpu"], {"percpu": 5})


def test_an_interval_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match=r"interval of group 'tcp': 0\.1 s, expected 1 s or more"):
        make(Roots(), ["tcp"], {"tcp": 0.1})


def test_services_have_groups_where_asked_for(
    make_cgroup: Any, containers: Containers, sampler: Sampler
) -> None:
    made = make_cgroup()
    process = made.python("print('ready', flush=True)\nsys.stdin.readline()\n")
    assert process.stdout.readline() == b"ready\n"
    containers.offer(Container(made.path, "", cgroup=made.path))
    board = Board()
    Lane("cgroups", sampler.cgroup_targets, board, make(Roots(), choose_for_cgroups(["process"]))).step()
    assert board.value(made.path, "container_processes") == 1
    assert board.value(made.path, "container_file_descriptors") == 3


def test_groups_about_what_containers_alone_have_are_refused_of_services() -> None:
    with pytest.raises(
        ValueError, match="no group 'tcp' of services and slices; known are commands, cpuLoad"
    ):
        choose_for_cgroups(["process", "tcp"])
