"""Groups ``hugetlb``, ``memory_numa`` and ``cpuset``: cgroup files that say something on few hosts only.

Source of the formats: the kernel's Documentation/admin-guide/cgroup-v1/hugetlb.rst, memory.rst and
cpusets.rst, and cgroup-v2.rst. Names, labels and units are cAdvisor's on both versions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from collector.cgroup.files import FlatKeys, number, read_once
from collector.cgroup.layout import UNIFIED
from collector.lanes.board import Reading
from collector.lanes.members import directory_of
from collector.roots import Roots
from collector.target import Target

__all__ = ["CpusetGroup", "HugetlbGroup", "NumaGroup", "page_sizes", "parse_numa_v1", "parse_numa_v2"]

_PAGE = os.sysconf("SC_PAGE_SIZE")
_MAX_EVENTS = FlatKeys(b"max")
_TYPES = ("file", "anon", "unevictable")


def page_sizes(roots: Roots) -> tuple[str, ...]:
    """The sizes of huge pages this host has, as the files of the controller name them: ``2MB``, ``1GB``."""
    sizes = []
    for directory in (roots.sys / "kernel/mm/hugepages").glob("hugepages-*kB"):
        kilobytes = int(directory.name.removeprefix("hugepages-").removesuffix("kB"))
        for unit, size in (("GB", 1 << 20), ("MB", 1 << 10), ("KB", 1)):
            if kilobytes >= size:
                sizes.append((kilobytes, f"{kilobytes // size}{unit}"))
                break
    return tuple(name for _, name in sorted(sizes))


class HugetlbGroup:
    """Use of huge pages by size; v2 does not keep the highest use."""

    name = "hugetlb"

    def __init__(self, roots: Roots, seconds: float = 60.0) -> None:
        self.seconds = seconds
        self._sizes = page_sizes(roots)

    def read(self, target: Target) -> Sequence[Reading]:
        """Raise OSError, ValueError; nothing without the controller."""
        readings: list[Reading] = []
        one = directory_of(target, "hugetlb")
        two = directory_of(target, UNIFIED)
        for size in self._sizes:
            labels = (("pagesize", size),)
            values = _hugetlb_v1(one, size) if one else _hugetlb_v2(two, size)
            readings += [Reading(f"container_hugetlb_{name}", labels, value) for name, value in values]
        return readings


def _hugetlb_v1(directory: Path, size: str) -> Iterator[tuple[str, int]]:
    files = {"usage_bytes": "usage_in_bytes", "max_usage_bytes": "max_usage_in_bytes", "failcnt": "failcnt"}
    for name, file in files.items():
        data = read_once(directory, f"hugetlb.{size}.{file}")
        if data is not None:
            yield name, number(data)


def _hugetlb_v2(directory: Path | None, size: str) -> Iterator[tuple[str, int]]:
    current = read_once(directory, f"hugetlb.{size}.current")
    if current is None:
        return
    yield "usage_bytes", number(current)
    events = read_once(directory, f"hugetlb.{size}.events")
    failures = _MAX_EVENTS.values(events)[0] if events else None
    if failures is not None:
        yield "failcnt", failures


def parse_numa_v1(data: bytes) -> dict[tuple[str, str, str], int]:
    """v1's ``memory.numa_stat``: pages by type, scope and node. ``file=5 N0=3 N1=2`` a line."""
    found = {}
    for line in data.decode(errors="replace").splitlines():
        name, *nodes = line.split()
        kind, _, _ = name.partition("=")
        scope = "hierarchy" if kind.startswith("hierarchical_") else "container"
        kind = kind.removeprefix("hierarchical_")
        if kind in _TYPES:
            for node, value in _nodes(nodes):
                found[kind, scope, node] = value
    return found


def parse_numa_v2(data: bytes) -> dict[tuple[str, str, str], int]:
    """v2's ``memory.numa_stat``: ``anon N0=4096`` a line, in bytes and with the cgroups below."""
    found = {}
    for line in data.decode(errors="replace").splitlines():
        kind, *nodes = line.split()
        if kind in _TYPES:
            for node, value in _nodes(nodes):
                found[kind, "hierarchy", node] = value // _PAGE
    return found


def _nodes(words: Sequence[str]) -> Iterator[tuple[str, int]]:
    for word in words:
        found = re.fullmatch(r"N(\d+)=(\d+)", word)
        if found is None:
            raise ValueError(f"numa_stat {word[:40]!r}: expected N and a node's number, =, and a number")
        yield found[1], int(found[2])


class NumaGroup:
    """Memory by NUMA node, in pages as cAdvisor counts it on v1."""

    name = "memory_numa"

    def __init__(self, seconds: float = 60.0) -> None:
        self.seconds = seconds

    def read(self, target: Target) -> Sequence[Reading]:
        """Raise OSError, ValueError; nothing on a kernel without NUMA."""
        one = directory_of(target, "memory")
        data = read_once(one or directory_of(target, UNIFIED), "memory.numa_stat")
        if data is None:
            return ()
        found = parse_numa_v1(data) if one else parse_numa_v2(data)
        return [
            Reading("container_memory_numa_pages", (("type", kind), ("scope", scope), ("node", node)), value)
            for (kind, scope, node), value in sorted(found.items())
        ]


class CpusetGroup:
    """Whether memory moves with the container to other nodes; v1 alone has the choice."""

    name = "cpuset"

    def __init__(self, seconds: float = 60.0) -> None:
        self.seconds = seconds

    def read(self, target: Target) -> Sequence[Reading]:
        """Raise OSError, ValueError; nothing without v1's controller."""
        data = read_once(directory_of(target, "cpuset"), "cpuset.memory_migrate")
        return () if data is None else [Reading("container_memory_migrate", (), number(data))]
