"""Which slow groups of counters are on and how often, from the configuration, and the lanes that read them."""

from __future__ import annotations

from collections.abc import Mapping

from collector.disk.group import DiskGroup
from collector.lanes.board import Board
from collector.lanes.groups import choose, choose_for_cgroups, make
from collector.lanes.lane import Lane
from collector.roots import Roots
from collector.sampler import Sampler
from taffrail.config import CollectorConfig
from taffrail.units import parse_duration

__all__ = ["intervals", "make_lanes"]


def intervals(given: Mapping[str, str]) -> dict[str, float]:
    """Seconds by group. Raises ValueError naming a group nobody knows or what is no duration."""
    choose(given)
    return {name: parse_duration(text) for name, text in given.items()}


def make_lanes(config: CollectorConfig, roots: Roots, sampler: Sampler, board: Board) -> list[Lane]:
    """The lane of sockets, processes and rare controllers, the disk walker's, and one for services and slices.

    None is made that has nothing to read.

    Raises ValueError where the configuration names what is not there.
    """
    names = choose(config.groups)
    groups = make(roots, names, intervals(config.group_intervals))
    counters = [group for group in groups if not isinstance(group, DiskGroup)]
    lanes = [Lane("counters", sampler.targets, board, counters)] if counters else []
    for group in groups:
        if isinstance(group, DiskGroup):
            walker = group.walker
            lanes.append(Lane("disk", sampler.targets, board, [group], budget=walker.share, stop=walker.stop))
    if config.cgroup_groups:
        further = make(roots, choose_for_cgroups(config.cgroup_groups), intervals(config.group_intervals))
        lanes.append(Lane("cgroups", sampler.cgroup_targets, board, further))
    return lanes
