"""Huge pages, NUMA nodes and cpusets, as the kernel's files say it on v1 and v2."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from collector.cgroup.layout import UNIFIED
from collector.lanes.controllers import CpusetGroup, HugetlbGroup, NumaGroup, page_sizes, parse_numa_v1
from collector.roots import Roots
from tests.collector.lanes.conftest import values

V1_NUMA = """total=44611 N0=32631 N1=11980
file=44428 N0=32614 N1=11814
anon=183 N0=17 N1=166
unevictable=0 N0=0 N1=0
hierarchical_total=768133 N0=509113 N1=259020
hierarchical_file=722017 N0=496516 N1=225501
hierarchical_anon=46096 N0=12597 N1=33499
hierarchical_unevictable=20 N0=0 N1=20
"""
V2_NUMA = """anon N0=40960 N1=8192
file N0=4096 N1=0
kernel_stack N0=16384 N1=0
unevictable N0=0 N1=4096
"""


def target(root: Path, controller: str, **files: str) -> Any:
    root.mkdir(exist_ok=True)
    for name, text in files.items():
        (root / name.replace("__", ".")).write_text(text)
    return SimpleNamespace(cgroup=SimpleNamespace(directories={controller: root}))


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    for size in (2048, 1048576, 64):
        (tmp_path / f"sys/kernel/mm/hugepages/hugepages-{size}kB").mkdir(parents=True)
    return Roots(sys=tmp_path / "sys")


def test_sizes_are_named_as_the_controllers_files_are(roots: Roots) -> None:
    assert page_sizes(roots) == ("64KB", "2MB", "1GB")


def test_huge_pages_on_v1(roots: Roots, tmp_path: Path) -> None:
    made = target(
        tmp_path / "c",
        "hugetlb",
        hugetlb__2MB__usage_in_bytes="4194304\n",
        hugetlb__2MB__max_usage_in_bytes="8388608\n",
        hugetlb__2MB__failcnt="3\n",
    )
    assert values(HugetlbGroup(roots).read(made)) == {
        ("container_hugetlb_usage_bytes", "2MB"): 4194304,
        ("container_hugetlb_max_usage_bytes", "2MB"): 8388608,
        ("container_hugetlb_failcnt", "2MB"): 3,
    }


def test_huge_pages_on_v2(roots: Roots, tmp_path: Path) -> None:
    made = target(
        tmp_path / "c", UNIFIED, hugetlb__1GB__current="1073741824\n", hugetlb__1GB__events="max 2\n"
    )
    assert values(HugetlbGroup(roots).read(made)) == {
        ("container_hugetlb_usage_bytes", "1GB"): 1073741824,
        ("container_hugetlb_failcnt", "1GB"): 2,
    }


def test_without_the_controller_there_is_nothing(roots: Roots, tmp_path: Path) -> None:
    assert list(HugetlbGroup(roots).read(target(tmp_path / "c", UNIFIED))) == []
    assert list(NumaGroup().read(target(tmp_path / "c", UNIFIED))) == []
    assert list(CpusetGroup().read(target(tmp_path / "c", UNIFIED))) == []


def test_numa_nodes_on_v1(tmp_path: Path) -> None:
    found = values(NumaGroup().read(target(tmp_path / "c", "memory", memory__numa_stat=V1_NUMA)))
    name = "container_memory_numa_pages"
    assert len(found) == 12
    assert found[name, "file,container,0"] == 32614
    assert found[name, "anon,hierarchy,1"] == 33499
    assert found[name, "unevictable,hierarchy,1"] == 20


def test_numa_nodes_on_v2_are_pages_too(tmp_path: Path) -> None:
    found = values(NumaGroup().read(target(tmp_path / "c", UNIFIED, memory__numa_stat=V2_NUMA)))
    name = "container_memory_numa_pages"
    assert found == {
        (name, "anon,hierarchy,0"): 10,
        (name, "anon,hierarchy,1"): 2,
        (name, "file,hierarchy,0"): 1,
        (name, "file,hierarchy,1"): 0,
        (name, "unevictable,hierarchy,0"): 0,
        (name, "unevictable,hierarchy,1"): 1,
    }


def test_a_node_of_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match="expected N and a node's number"):
        parse_numa_v1(b"file=1 X0=1\n")


def test_memory_migrate(tmp_path: Path) -> None:
    made = target(tmp_path / "c", "cpuset", cpuset__memory_migrate="1\n")
    assert values(CpusetGroup().read(made)) == {("container_memory_migrate", ""): 1}
