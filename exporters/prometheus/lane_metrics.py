"""What the lanes of slow counters cost, how old their readings are and what failed, as our own metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from collector.lanes.lane import Lane
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
        for state in (state for lane in known for state in lane.groups):
            labels = [state.group.name]
            age.add(labels, state.age())
            interval.add(labels, state.group.seconds)
            for name, family in counters.items():
                if name == "cut":
                    family.add(labels, getattr(state.group, "cut", 0))
                else:
                    family.add(labels, getattr(state, name))
        yield from (age, interval, *counters.values())

    return source
