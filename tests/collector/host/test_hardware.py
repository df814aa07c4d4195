"""Caches, threads, NUMA nodes and memory modules of a made machine of two sockets, and of this one."""

from __future__ import annotations

from pathlib import Path

import pytest

from collector.host.hardware import Cache, Modules, Thread, parse_cpu_list, read_hardware
from collector.roots import Roots


def write(root: Path, **files: str) -> None:
    """Files by path, ``__`` for a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    """Two nodes of two cores; the cores of node 0 have two threads each, node 1 has no third level."""
    sys = tmp_path / "sys"
    cpus, nodes = sys / "devices/system/cpu", sys / "devices/system/node"
    where = {0: (0, 0), 1: (0, 1), 2: (0, 0), 3: (0, 1), 4: (1, 0), 5: (1, 1)}
    for cpu, (socket, core) in where.items():
        shared = {0: "0,2", 2: "0,2", 1: "1,3", 3: "1,3"}.get(cpu, str(cpu))
        write(cpus / f"cpu{cpu}", topology__core_id=str(core), topology__physical_package_id=str(socket))
        levels = [("0", "1", "Data", "32K", shared), ("1", "2", "Unified", "1M", shared)]
        if socket == 0:
            levels.append(("2", "3", "Unified", "8192K", "0-3"))
        for index, level, kind, size, sharing in levels:
            directory = cpus / f"cpu{cpu}/cache/index{index}"
            write(directory, level=level, type=kind, size=size, shared_cpu_list=sharing)
    for node, members in ((0, "0-3"), (1, "4,5")):
        directory = nodes / f"node{node}"
        meminfo = f"Node {node} MemTotal:       1024 kB\nNode {node} MemFree:  1 kB"
        write(directory, cpulist=members, distance="10 21" if node == 0 else "21 10", meminfo=meminfo)
        write(directory / "hugepages/hugepages-2048kB", nr_hugepages=str(3 + node))
    edac = sys / "devices/system/edac/mc"
    for name, kind, size in (("mc0/dimm0", "Unbuffered-DDR4", 16), ("mc1/dimm0", "Unbuffered-DDR4", 8)):
        write(edac / name, dimm_mem_type=kind, size=str(size))
    return Roots(sys=sys)


def test_caches_belong_to_cores_and_nodes(roots: Roots) -> None:
    hardware = read_hardware(roots, topology=True)
    assert [cache for cache in hardware.caches if cache.node == 0] == [
        Cache(0, 0, "Data", 1, 32768),
        Cache(0, 0, "Unified", 2, 1048576),
        Cache(0, None, "Unified", 3, 8388608),
        Cache(0, 1, "Data", 1, 32768),
        Cache(0, 1, "Unified", 2, 1048576),
    ]
    assert [cache.level for cache in hardware.caches if cache.node == 1] == [1, 2, 1, 2]


def test_a_cache_that_part_of_a_node_shares_is_its_cores(roots: Roots) -> None:
    for cpu in range(4):
        path = roots.sys / f"devices/system/cpu/cpu{cpu}/cache/index2/shared_cpu_list"
        path.write_text("0,2\n" if cpu in (0, 2) else "1,3\n")
    caches = read_hardware(roots, topology=True).caches
    assert [cache.core for cache in caches if cache.level == 3] == [0, 1]


def test_threads_nodes_and_modules(roots: Roots) -> None:
    hardware = read_hardware(roots, topology=True)
    assert set(hardware.threads) == {
        *(Thread(0, core, cpu, 2) for cpu, core in ((0, 0), (1, 1), (2, 0), (3, 1))),
        *(Thread(1, core, cpu, 1) for cpu, core in ((4, 0), (5, 1))),
    }
    assert hardware.node_memory == {0: 1 << 20, 1: 1 << 20}
    assert hardware.huge_pages == {(0, 2048): 3, (1, 2048): 4}
    assert hardware.distances == {(0, 0): 10, (0, 1): 21, (1, 0): 21, (1, 1): 10}
    assert hardware.modules == {"Unbuffered-DDR4": Modules(2, 24 << 20)}
    assert hardware.nvm_bytes == {"app_direct_mode": 0, "memory_mode": 0}


def test_what_costs_a_file_for_each_cpu_is_read_only_where_asked_for(roots: Roots) -> None:
    hardware = read_hardware(roots)
    assert (hardware.caches, hardware.threads, hardware.node_memory) == ((), (), {})
    assert hardware.modules


def test_a_cpu_that_is_offline_is_in_no_core(roots: Roots) -> None:
    (roots.sys / "devices/system/cpu/cpu3/topology/core_id").unlink()
    threads = read_hardware(roots, topology=True).threads
    assert {(cpu.thread, cpu.siblings) for cpu in threads if cpu.core == 1 and cpu.node == 0} == {(1, 1)}


def test_without_numa_sockets_are_the_nodes(roots: Roots) -> None:
    for path in sorted((roots.sys / "devices/system/node").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    hardware = read_hardware(roots, topology=True)
    assert {cpu.node for cpu in hardware.threads} == {0, 1}
    assert hardware.node_memory == {}


def test_memory_that_persists_is_told_by_its_regions(roots: Roots) -> None:
    """How much of the modules serves as memory the kernel does not tell, so that mode is left out."""
    write(roots.sys / "bus/nd/devices", nmem0__id="1", region0__size="4096", region1__size="8192")
    assert read_hardware(roots).nvm_bytes == {"app_direct_mode": 12288}


def test_this_machine() -> None:
    hardware = read_hardware(Roots(), topology=True)
    online = Path("/sys/devices/system/cpu/online").read_text().strip()
    assert {cpu.thread for cpu in hardware.threads} == set(parse_cpu_list(online))
    nodes = sorted(Path("/sys/devices/system/node").glob("node[0-9]*"))
    assert set(hardware.node_memory) == {int(node.name.removeprefix("node")) for node in nodes}
    assert not nodes or sum(hardware.node_memory.values()) > 1 << 20  # a node may have none of it


def test_a_list_of_cpus() -> None:
    assert parse_cpu_list("0-2,5") == [0, 1, 2, 5]
    assert parse_cpu_list("") == []
    with pytest.raises(ValueError, match="invalid literal"):
        parse_cpu_list("a-b")
