"""The slow groups there are: what each is called, whether it is on, how often it is read.

Names are cAdvisor's where it has the group; ``choose`` says which of all are on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from collector.disk.group import DiskGroup
from collector.lanes.commands import CommandGroup, ReferencedGroup
from collector.lanes.conntrack import ConntrackGroup
from collector.lanes.controllers import CpusetGroup, HugetlbGroup, NumaGroup
from collector.lanes.lane import Group
from collector.lanes.netstat import AdvancedTcpGroup, NetstatGroup, SockstatGroup
from collector.lanes.processes import ProcessGroup, SchedGroup
from collector.lanes.sockets import TcpGroup, UdpGroup
from collector.lanes.tasks import TaskGroup
from collector.roots import Roots

__all__ = ["CHOICES", "SAMPLED", "Choice", "choose", "choose_for_cgroups", "make"]

#: Groups of the sampling pass and of the host that can be switched, and whether they are on: no interval of their own.
SAMPLED: Mapping[str, bool] = {"percpu": False, "cpu_topology": False}

#: Reading more often than this would be a pass of its own.
LEAST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Choice:
    """A group that can be had."""

    on: bool  #: unless configured otherwise
    seconds: float  #: between readings, unless configured otherwise
    make: Callable[[Roots, float], Group]
    cgroups: bool = False  #: whether it says something of a service or a slice, too


def _perf(roots: Roots, seconds: float) -> Group:
    from collector.lanes.perf import PerfGroup  # ctypes: memory that few agents need

    return PerfGroup(roots, seconds)


CHOICES: Mapping[str, Choice] = {
    "tcp": Choice(True, 30.0, lambda _, seconds: TcpGroup(seconds)),
    "udp": Choice(True, 30.0, lambda _, seconds: UdpGroup(seconds)),
    "netstat": Choice(True, 30.0, lambda _, seconds: NetstatGroup(seconds)),
    "sockstat": Choice(True, 30.0, lambda _, seconds: SockstatGroup(seconds)),
    "conntrack": Choice(True, 30.0, ConntrackGroup),
    "process": Choice(True, 30.0, ProcessGroup, cgroups=True),
    "cpuLoad": Choice(True, 10.0, TaskGroup, cgroups=True),
    "disk": Choice(True, 300.0, DiskGroup),
    "hugetlb": Choice(True, 60.0, HugetlbGroup, cgroups=True),
    "advtcp": Choice(False, 30.0, lambda _, seconds: AdvancedTcpGroup(seconds)),
    "commands": Choice(False, 30.0, CommandGroup, cgroups=True),
    "sched": Choice(False, 30.0, SchedGroup, cgroups=True),
    "memory_numa": Choice(False, 60.0, lambda _, seconds: NumaGroup(seconds), cgroups=True),
    "perf": Choice(False, 60.0, _perf, cgroups=True),
    "referenced_memory": Choice(False, 60.0, ReferencedGroup, cgroups=True),
    "cpuset": Choice(False, 60.0, lambda _, seconds: CpusetGroup(seconds), cgroups=True),
}


def choose(wanted: Iterable[str], known: Mapping[str, bool] | None = None) -> tuple[str, ...]:
    """The groups that are on, of ``known`` (by name, whether on by default; all there are if not given).

    Plain names are the whole set; names with ``+`` or ``-`` before them change the default one.
    Raises ValueError naming a group nobody knows, or a mixture.
    """
    defaults = known or {**SAMPLED, **{name: choice.on for name, choice in CHOICES.items()}}
    words = list(wanted)
    changes = [word for word in words if word[:1] in ("+", "-")]
    if changes and len(changes) != len(words):
        raise ValueError(f"groups {words!r}: expected either all names with + or -, or none")
    for word in words:
        if word.lstrip("+-") not in defaults:
            raise ValueError(f"no group {word.lstrip('+-')!r}; known are {', '.join(sorted(defaults))}")
    on = {name for name, default in defaults.items() if default} if changes or not words else set(words)
    on |= {word[1:] for word in changes if word[0] == "+"}
    on -= {word[1:] for word in changes if word[0] == "-"}
    return tuple(name for name in defaults if name in on)


def choose_for_cgroups(wanted: Iterable[str]) -> tuple[str, ...]:
    """The groups to read of bare cgroups.

    Raises ValueError naming a group nobody knows, or one that is about what containers alone have.
    """
    names = tuple(dict.fromkeys(wanted))
    able = [name for name, choice in CHOICES.items() if choice.cgroups]
    for name in names:
        if name not in able:
            raise ValueError(f"no group {name!r} of services and slices; known are {', '.join(sorted(able))}")
    return names


def make(roots: Roots, names: Iterable[str], seconds: Mapping[str, float] | None = None) -> list[Group]:
    """The groups of ``CHOICES`` by name, each at its interval or the one in ``seconds``.

    Raises ValueError naming an interval that is too short, or of a group that has none.
    """
    groups = []
    for name in (name for name in seconds or {} if name not in CHOICES):
        raise ValueError(f"interval of group {name!r}: it has none of its own, expected none")
    for name in (name for name in names if name in CHOICES):
        choice = CHOICES[name]
        interval = (seconds or {}).get(name, choice.seconds)
        if interval < LEAST_SECONDS:
            raise ValueError(
                f"interval of group {name!r}: {interval:g} s, expected {LEAST_SECONDS:g} s or more"
            )
        groups.append(choice.make(roots, interval))
    return groups
