import contextlib
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collector.cgroup.descriptors import Descriptors
from collector.cgroup.layout import Layout
from collector.cgroup.reader import LIMITS_EVERY_NS, CgroupReader
from collector.roots import Roots
from collector.sample import BlockIO, Cpu, Memory, Pressure

ID = "4f" * 32


def reader(roots: Roots) -> CgroupReader:
    layout = Layout.read(roots)
    return CgroupReader(layout, layout.process_paths(4242, ID))


def test_a_v1_container(recorded: Callable[[str], Roots]) -> None:
    cgroup = reader(recorded("v1"))
    sample = cgroup.read(1_000_000_000_000)
    cgroup.close()
    assert sample.errors == ()
    assert sample.cpu == Cpu(12.3456789, 8.0, 4.0, 500, 120, 3.6, (), 0, 0.0, 50000, 100000, 512)
    assert sample.memory == Memory(
        usage_bytes=73400320,
        working_set_bytes=73400320 - 5242880,
        rss_bytes=50331648,
        cache_bytes=20971520,
        mapped_file_bytes=4096,
        swap_bytes=8192,
        max_usage_bytes=104857600,
        kernel_bytes=1048576,
        active_file_bytes=15728640,
        inactive_file_bytes=5242880,
        limit_bytes=209715200,
        swap_limit_bytes=314572800,
        reservation_bytes=None,
        failures=7,
        page_faults=2000,
        major_page_faults=3,
        oom_kills=2,
        own_page_faults=2000,
        own_major_page_faults=3,
        stat={
            "file_dirty": 12288,
            "file_writeback": 4096,
            "workingset_refault_file": 12,
            "workingset_refault_anon": 11,
        },
    )
    assert sample.block_io == (BlockIO("259:0", 1048576, 2097152, 16, 32),)
    assert (sample.pids, sample.pids_limit, sample.pids_limit_events) == (5, 100, 6)
    assert sample.pressure == {}


def test_a_hybrid_host_adds_pressure_from_its_unified_tree(recorded: Callable[[str], Roots]) -> None:
    cgroup = reader(recorded("hybrid"))
    sample = cgroup.read(1)
    cgroup.close()
    assert sample.pressure == {
        "cpu": Pressure(1.5, 0.0, 0.1, 0.0),
        "memory": Pressure(0.25, 0.2, 0.1, 0.0),
        "io": Pressure(0.75, 0.7, 0.1, 0.0),
    }
    assert sample.cpu is not None
    assert sample.cpu.usage_seconds == 12.3456789  # of cpuacct, which is finer


def test_a_v2_container(recorded: Callable[[str], Roots]) -> None:
    cgroup = reader(recorded("v2"))
    sample = cgroup.read(1_000_000_000_000)
    cgroup.close()
    assert sample.errors == ()
    assert sample.cpu == Cpu(12.345678, 8.0, 4.345678, 500, 120, 3.6, (), 4, 0.05, 50000, 100000, 500)
    assert sample.memory is not None
    assert sample.memory.limit_bytes == 209715200
    assert sample.memory.swap_limit_bytes == 104857600
    assert sample.memory.kernel_bytes == 1572864
    assert (sample.memory.high_events, sample.memory.max_events, sample.memory.oom_kills) == (4, 7, 2)
    assert sample.memory.stat == {
        "file_dirty": 8192,
        "file_writeback": 0,
        "pgscan": 900,
        "pgsteal": 800,
        "workingset_refault_file": 12,
        "workingset_refault_anon": 11,
    }
    assert sample.block_io == (BlockIO("259:0", 1048576, 2097152, 16, 32, 1.5, 2.5, 0.5, 0.75),)
    assert sample.pids == 5  # of the container, not of the init system's scope inside
    assert set(sample.pressure) == {"cpu", "memory", "io", "irq"}
    assert sample.memory.high_bytes == 96000000


def test_per_cpu_usage_where_asked(recorded: Callable[[str], Roots]) -> None:
    layout = Layout.read(recorded("v1"))
    cgroup = CgroupReader(layout, layout.process_paths(4242, ID), per_cpu=True)
    sample = cgroup.read(1)
    cgroup.close()
    assert sample.cpu is not None
    assert sample.cpu.per_cpu_seconds == (6.3456789, 6.0)


def test_one_broken_controller_costs_the_others_nothing(tmp_path: Path, recorded: Any) -> None:
    source = recorded("v2")
    roots = Roots(tmp_path / "proc", tmp_path / "sys")
    shutil.copytree(source.proc, roots.proc)
    shutil.copytree(source.sys, roots.sys)
    scope = roots.sys / f"fs/cgroup/system.slice/docker-{ID}.scope"
    (scope / "memory.current").write_text("lots\n")
    (scope / "io.stat").unlink()
    cgroup = reader(roots)
    sample = cgroup.read(1)
    cgroup.close()
    assert sample.errors == ("memory: b'lots\\n': expected one decimal number",)
    assert sample.memory is None
    assert sample.block_io == ()  # absent, not failed
    assert sample.pids == 5


def test_limits_are_looked_at_again(tmp_path: Path, recorded: Any) -> None:
    source = recorded("v2")
    roots = Roots(tmp_path / "proc", tmp_path / "sys")
    shutil.copytree(source.proc, roots.proc)
    shutil.copytree(source.sys, roots.sys)
    limit = roots.sys / f"fs/cgroup/system.slice/docker-{ID}.scope/memory.max"
    cgroup = reader(roots)
    now = LIMITS_EVERY_NS
    seen = []
    set_late = ((0, "max"), (1, "max"), (2, "209715200"))  # by a runtime, after the first process was in
    for step, text in (*set_late, (3, "max"), (2 + LIMITS_EVERY_NS, "max")):
        limit.write_text(text + "\n")
        memory = cgroup.read(now + step).memory
        assert memory is not None
        seen.append(memory.limit_bytes)
    cgroup.close()
    assert seen == [None, None, 209715200, 209715200, None]


@pytest.mark.parametrize(
    ("version", "usage", "statistics", "highest"),
    [
        ("v1", "cpuacct.usage", "memory.stat", "memory.max_usage_in_bytes"),
        ("v2", "cpu.stat", "memory.stat", "memory.peak"),
    ],
)
def test_what_only_processes_make_grow_is_read_again_once_one_ran(
    tmp_path: Path, recorded: Any, version: str, usage: str, statistics: str, highest: str
) -> None:
    """Else with the limits; what else may grow is read every time, and what is the same stays the same object."""
    source = recorded(version)
    roots = Roots(tmp_path / "proc", tmp_path / "sys")
    shutil.copytree(source.proc, roots.proc)
    shutil.copytree(source.sys, roots.sys)
    cgroup = reader(roots)
    files = {file.name: file for path in cgroup.directories.values() for file in path.iterdir()}
    now, sample = LIMITS_EVERY_NS, None

    def read() -> Memory:
        nonlocal now, sample
        sample = cgroup.read(now, sample)
        now += 1_000_000_000
        assert sample.memory is not None
        return sample.memory

    for _ in range(5):  # the first ones look at the limits
        resting = read()
    assert read() is resting
    files[highest].write_text("987654321\n")
    assert read() is resting
    grown = files[statistics].read_bytes().replace(b"pgfault ", b"pgfault 1")
    files[statistics].write_bytes(grown)
    assert read().max_usage_bytes == 987654321
    files[highest].write_text("987654322\n")
    assert read().max_usage_bytes == 987654321
    files[usage].write_bytes(files[usage].read_bytes().replace(b"1", b"2", 1))
    assert read().max_usage_bytes == 987654322
    for _ in range(3):
        read()
    files[highest].write_text("987654323\n")
    now += LIMITS_EVERY_NS
    assert read().max_usage_bytes == 987654323
    cgroup.close()


def test_how_cpu_time_is_made_up_is_read_until_none_was_used_twice(tmp_path: Path, recorded: Any) -> None:
    source = recorded("v1")
    roots = Roots(tmp_path / "proc", tmp_path / "sys")
    shutil.copytree(source.proc, roots.proc)
    shutil.copytree(source.sys, roots.sys)
    cgroup = reader(roots)
    files = {file.name: file for path in cgroup.directories.values() for file in path.iterdir()}
    files["cpu.cfs_quota_us"].write_text("-1\n")
    stat = files["cpuacct.stat"]

    def user(ticks: int) -> float | None:
        stat.write_text(f"user {ticks}\nsystem 0\n")
        cpu = cgroup.read(LIMITS_EVERY_NS).cpu
        assert cpu is not None
        return cpu.user_seconds

    assert [user(ticks) for ticks in (100, 200)] == [1.0, 2.0]
    assert user(300) == 2.0
    files["cpuacct.usage"].write_text("5000000000\n")
    assert [user(ticks) for ticks in (400, 500, 600)] == [4.0, 5.0, 5.0]
    cgroup.close()


def test_a_cgroup_removed_in_the_middle_keeps_its_last_values(make_cgroup: Any) -> None:
    made = make_cgroup()
    layout = Layout.read(Roots())
    cgroup = CgroupReader(layout, layout.everywhere(made.path))
    before = cgroup.read(1)
    assert not cgroup.gone
    made.directories.pop("memory").rmdir()  # as runc does it: one hierarchy after the other
    half = cgroup.read(2, before)
    assert cgroup.gone
    assert half.memory == before.memory
    assert half.pids == 0
    made.end()
    after = cgroup.read(3, half)
    cgroup.close()
    assert (after.cpu, after.memory, after.pids) == (half.cpu, half.memory, half.pids)
    assert after.errors == ()


def test_a_cgroup_that_is_nowhere_cannot_be_opened(recorded: Callable[[str], Roots]) -> None:
    layout = Layout.read(recorded("v1"))
    with pytest.raises(FileNotFoundError, match="no cgroup directory at"):
        CgroupReader(layout, layout.everywhere("/docker/other"))


class Room(Descriptors):
    """For so many descriptors."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def room(self, count: int) -> bool:
        return self.kept + count <= self.most


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def limit_leaving(free: int) -> int:
    """The limit under which just so many more can be opened: it is the highest number, whatever is open below it."""
    opened = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with contextlib.suppress(OSError):  # the list's own
            os.fstat(int(name))
            opened.add(int(name))
    limit = 0
    while free:
        free -= limit not in opened
        limit += 1
    return limit


@pytest.mark.parametrize("name", ["v1", "v2", "hybrid"])
def test_a_cgroup_without_room_for_its_files_is_read_all_the_same(
    recorded: Callable[[str], Roots], name: str
) -> None:
    layout = Layout.read(recorded(name))
    paths = layout.process_paths(4242, ID)
    before, room = open_files(), Room(0)
    kept, opened = CgroupReader(layout, paths), CgroupReader(layout, paths, descriptors=room)
    assert kept.keeps
    assert not opened.keeps
    for now in (1, 2, LIMITS_EVERY_NS):
        assert opened.read(now) == kept.read(now)
        assert not opened.keeps
    kept.close()
    assert open_files() == before
    room.most = 100
    assert opened.read(3 * LIMITS_EVERY_NS).errors == ()
    assert opened.keeps  # others went, it may keep its files from now on
    assert room.kept == open_files() - before > 0
    opened.close()
    assert (room.kept, open_files()) == (0, before)


def test_a_cgroup_without_room_that_is_removed_keeps_its_last_values(make_cgroup: Any) -> None:
    made = make_cgroup()
    layout = Layout.read(Roots())
    cgroup = CgroupReader(layout, layout.everywhere(made.path), descriptors=Room(0))
    before = cgroup.read(1)
    assert before.pids == 0
    made.end()
    after = cgroup.read(2, before)
    assert cgroup.gone
    assert (after.cpu, after.memory, after.pids, after.errors) == (before.cpu, before.memory, 0, ())
    cgroup.close()


def test_where_nothing_more_can_be_opened_the_last_values_stay_and_it_is_an_error(make_cgroup: Any) -> None:
    made = make_cgroup()
    layout = Layout.read(Roots())
    cgroup = CgroupReader(layout, layout.everywhere(made.path), descriptors=Room(0))
    before = cgroup.read(1)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = open_files()
    for free in range(9):  # at whichever file it happens, none stays open
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit_leaving(free), limits[1]))
        try:
            failed = cgroup.read(2, before)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert failed.errors == ("cgroup: Too many open files",)
        assert (failed.cpu, failed.memory) == (before.cpu, before.memory)
        assert open_files() == opened
    assert cgroup.read(3, before).errors == ()
    cgroup.close()
    made.end()
