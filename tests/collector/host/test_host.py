from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from collector.host.cpu import HostCpu, Topology, parse_boot, parse_cpuinfo, parse_stat
from collector.host.disks import names, parse_diskstats
from collector.host.filesystems import mounted_devices, read_filesystems
from collector.host.machine import read_machine
from collector.host.memory import HostMemory, memory_in_use, parse_meminfo
from collector.host.probe import Probe
from collector.roots import Roots


def test_cpu_time_is_the_sum_docker_divides_by() -> None:
    data = b"cpu  1 2 3 4 5 6 7 800 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 1 2 3\ncpu-like\nbtime 77\n"
    assert parse_stat(data) == HostCpu(0.28, 0.03, 0.16, 1)
    assert parse_boot(data) == 77
    assert parse_boot(b"cpu 1\n") == 0
    with pytest.raises(ValueError, match="expected a line of cpu and seven numbers"):
        parse_stat(b"")


def test_topology_with_and_without_sockets() -> None:
    rows = [(0, 0), (0, 1), (0, 0), (1, 0)]
    text = "".join(
        f"processor : {n}\nphysical id : {socket}\ncore id : {core}\n\n"
        for n, (socket, core) in enumerate(rows)
    )
    assert parse_cpuinfo(text.encode()) == Topology(4, 3, 2)
    assert parse_cpuinfo(b"processor : 0\nprocessor : 1\n") == Topology(2, 2, 1)


def test_memory_in_bytes() -> None:
    assert parse_meminfo(b"MemTotal: 8 kB\nMemFree: 1 kB\nHugePages_Total: 0\n") == HostMemory(
        8192, 1024, 0, 0
    )
    with pytest.raises(ValueError, match="expected a line MemTotal"):
        parse_meminfo(b"")


def test_memory_in_use_where_no_cgroup_counts_it() -> None:
    data = (
        b"MemTotal: 100 kB\nBuffers: 3 kB\nCached: 20 kB\nActive(file): 9 kB\nInactive(file): 8 kB\n"
        b"SwapTotal: 7 kB\nSwapFree: 2 kB\nAnonPages: 30 kB\nMapped: 4 kB\n"
    )
    memory = memory_in_use(data)
    assert (memory.usage_bytes, memory.working_set_bytes) == (53 << 10, 45 << 10)
    assert (memory.rss_bytes, memory.cache_bytes, memory.mapped_file_bytes) == (30 << 10, 23 << 10, 4 << 10)
    assert (memory.swap_bytes, memory.active_file_bytes, memory.inactive_file_bytes) == (
        5 << 10,
        9 << 10,
        8 << 10,
    )
    with pytest.raises(ValueError, match="expected a line MemTotal"):
        memory_in_use(b"")


def test_disks_that_did_nothing_are_left_out_but_have_names() -> None:
    data = b" 7 0 loop0 0 0 0 0 0 0 0 0 0 0 0\n 8 0 sda 1 2 3 4000 5 6 7 8000 9 10000 11000 0 0\n"
    (disk,) = parse_diskstats(data)
    assert (disk.device, disk.number, disk.sectors_read, disk.read_seconds) == ("/dev/sda", "8:0", 3, 4.0)
    assert (disk.io_current, disk.io_seconds, disk.io_weighted_seconds) == (9, 10.0, 11.0)
    assert names(data) == {"7:0": "/dev/loop0", "8:0": "/dev/sda"}
    with pytest.raises(ValueError, match="expected 14 fields"):
        parse_diskstats(b"8 0 sda 1\n")


def test_each_device_is_asked_once_and_pseudo_file_systems_never() -> None:
    mountinfo = (
        b"27 1 254:0 / / rw - ext4 /dev/vda rw\n"
        b"42 27 254:0 /x /mnt/y rw - ext4 /dev/vda rw\n"
        b"24 27 0:6 / /dev rw - devtmpfs /dev/x rw\n"
        b"25 27 0:7 / /n rw - nfs4 server:/export rw\n"
    )
    assert mounted_devices(mountinfo) == {"/dev/vda": "/"}


def test_the_real_root_has_a_size() -> None:
    found = {filesystem.mount_point: filesystem for filesystem in read_filesystems(Roots())}
    stat = os.statvfs("/")
    assert found["/"].capacity_bytes == stat.f_blocks * stat.f_frsize
    assert 0 < found["/"].used_bytes <= found["/"].capacity_bytes


def test_a_recorded_machine(recorded: Callable[[str], Roots]) -> None:
    machine = read_machine(recorded("v2"))
    assert machine.machine_id == "0123456789abcdef0123456789abcdef"
    assert machine.system_uuid == "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
    assert (machine.hostname, machine.kernel_version) == ("fixture", "6.1.0-test")
    assert machine.os_version == "Debian GNU/Linux 12 (bookworm)"
    assert machine.boot_ns == 1760000000 * 10**9
    assert machine.topology == Topology(2, 1, 1)  # two threads of one core


def test_a_machine_without_firmware_tables_is_known_by_its_machine_id(
    tmp_path: Path, recorded: Callable[[str], Roots]
) -> None:
    source = recorded("v2")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text("0123456789abcdef\n")
    roots = Roots(tmp_path / "proc", tmp_path / "sys", tmp_path)
    shutil.copytree(source.proc, roots.proc)
    assert read_machine(roots).system_uuid == "0123456789abcdef"
    (roots.proc / "device-tree").mkdir()
    (roots.proc / "device-tree/system-id").write_bytes(b"IBM,1\0")
    assert read_machine(roots).system_uuid == "IBM,1"


def test_a_file_system_that_hangs_is_left_out_and_the_others_are_there(tmp_path: Path) -> None:
    gate = threading.Event()

    def statvfs(path: str) -> os.statvfs_result:
        if path.endswith("/hung"):
            gate.wait(60)
        return os.statvfs("/")

    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text(
        "1 0 254:0 / / rw - ext4 /dev/vda rw\n2 1 254:1 / /hung rw - ext4 /dev/vdb rw\n"
        "3 1 254:2 / /home rw - xfs /dev/vdc rw\n"
    )
    try:
        found = read_filesystems(Roots(tmp_path), Probe(statvfs, seconds=1.0, total_seconds=60))
    finally:
        gate.set()
    assert [filesystem.device for filesystem in found] == ["/dev/vda", "/dev/vdc"]
