"""What the lanes of slow counters cost, how old their readings are and what failed, as our own metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from collector.lanes.lane import GroupState, Lane
from exporters.prometheus.own_families import OwnCounter, OwnFamily, OwnGauge
from exporters.prometheus.self_metrics import Source

__all__ = ["lane_metrics"]


def lane_metrics(lanes: Iterable[Lane]) -> Source:
    """Families by group."""
    known = tuple(lanes)

    def source() -> Iterator[OwnFamily]:
        age = OwnGauge(
            "taffrail_group_age_seconds",
            "Age of the oldest reading among the running containers.",
            labels=["group"],
        )
        interval = OwnGauge(
            "taffrail_group_interval_seconds", "Time between two readings of a container.", labels=["group"]
        )
        counters = {
            "reads": OwnCounter("taffrail_group_reads", "Readings of one container.", labels=["group"]),
            "failures": OwnCounter("taffrail_group_failures", "Readings that failed.", labels=["group"]),
            "postponed": OwnCounter(
                "taffrail_group_postponed",
                "Readings late by an interval or more, for want of CPU budget.",
                labels=["group"],
            ),
            "cpu_seconds": OwnCounter(
                "taffrail_group_cpu_seconds", "CPU time of readings.", labels=["group"]
            ),
            "cut": OwnCounter(
                "taffrail_group_cut_series", "Series left out, over a group's limit.", labels=["group"]
            ),
        }
        states: dict[str, list[GroupState]] = {}  # one of containers, and perhaps one of services and slices
        for lane in known:
            for state in lane.groups:
                states.setdefault(state.group.name, []).append(state)
        for group, members in states.items():
            labels = [group]
            age.add(labels, max(state.age() for state in members))
            interval.add(labels, members[0].group.seconds)
            for name, family in counters.items():
                objects = [state.group for state in members] if name == "cut" else members
                family.add(labels, sum(getattr(each, name, 0) for each in objects))
        yield from (age, interval, *counters.values())

    return source
