"""Slow groups by configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from collector.discovery.registry import Containers
from collector.lanes.board import Board
from collector.roots import Roots
from collector.sampler import Sampler
from exporters.prometheus.lane_metrics import lane_metrics
from taffrail.config_load import ConfigError, load
from taffrail.lanes import make_lanes


def groups(tmp_path: Path, settings: Sequence[str]) -> dict[str, float]:
    """Names and intervals of the groups that the agent would read."""
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    config = load(empty, environ={}, settings=settings)
    sampler = Sampler(Containers())
    try:
        lanes = make_lanes(config.collector, Roots(), sampler, Board())
        return {state.group.name: state.group.seconds for lane in lanes for state in lane.groups}
    finally:
        sampler.close()


def test_without_a_word_the_default_groups_are_read(tmp_path: Path) -> None:
    found = groups(tmp_path, [])
    assert found["tcp"] == 30
    assert "sched" not in found


def test_groups_and_intervals_are_what_is_configured(tmp_path: Path) -> None:
    settings = ["collector.groups=+sched,-udp", "collector.group_intervals=tcp=10s,sched=2m"]
    found = groups(tmp_path, settings)
    assert (found["tcp"], found["sched"]) == (10, 120)
    assert "udp" not in found


def test_a_list_is_the_whole_set(tmp_path: Path) -> None:
    assert set(groups(tmp_path, ["collector.groups=process,tcp"])) == {"process", "tcp"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("collector.groups=tpc", "no group 'tpc'; known are advtcp, commands, conntrack"),
        ("collector.groups=tcp,-udp", "expected either all names with"),
        ("collector.group_intervals=tcp=10x", "'10x' is not a duration"),
        ("collector.group_intervals=tcp=10ms", "interval of group 'tcp': 0.01 s, expected 1 s or more"),
        ("collector.group_intervals=tpc=10s", "no group 'tpc'"),
        ("collector.cgroup_groups=tcp", "no group .tcp. of services and slices"),
    ],
)
def test_what_is_wrong_is_refused_at_the_start(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        groups(tmp_path, [setting])


def test_a_group_of_services_is_one_with_that_of_containers(tmp_path: Path) -> None:
    """A group's cost and age are told once, whoever's it reads."""
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    settings = ["collector.groups=process", "collector.cgroup_groups=process,cpuLoad"]
    config = load(empty, environ={}, settings=settings)
    sampler = Sampler(Containers())
    try:
        lanes = make_lanes(config.collector, Roots(), sampler, Board())
        reads = next(
            family for family in lane_metrics(lanes)() if family.name == "taffrail_group_reads_total"
        )
        names = [labels for labels, _ in reads.series]
    finally:
        sampler.close()
    assert [lane.name for lane in lanes] == ["counters", "cgroups"]
    assert names == [("process",), ("cpuLoad",)]
