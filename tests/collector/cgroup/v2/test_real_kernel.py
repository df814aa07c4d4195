"""A cgroup v2 kernel in a virtual machine, with loads that are known, read by the ordinary sampler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from collector.cgroup.layout import UNIFIED, Layout, Mode
from collector.container import Container
from collector.discovery.registry import Containers
from collector.lanes.controllers import NumaGroup
from collector.lanes.members import processes, threads
from collector.roots import Roots
from collector.sample import Sample
from collector.sampler import HOST, Sampler, read_container
from collector.stats import stats_of

Pair = tuple[Sample, Sample]


@pytest.fixture(scope="module")
def samplers(v2_guest: Any) -> Iterator[tuple[Sampler, Sampler]]:
    made = []
    for number in range(2):
        containers = Containers()
        for container in v2_guest.containers():
            containers.update(container)
        sampler = Sampler(containers, v2_guest.roots(number))
        made.append(sampler)
        sampler.sample_all(v2_guest.uptime_ns(number))
    yield made[0], made[1]
    for sampler in made:
        sampler.close()


@pytest.fixture
def pair(v2_guest: Any, samplers: tuple[Sampler, Sampler]) -> Any:
    """The samples of a container before and after, by its name; both whole."""

    def of(name: str) -> Pair:
        key = HOST if name == HOST else v2_guest.ids[name]
        first, second = (sampler.latest(key) for sampler in samplers)
        assert first is not None
        assert second is not None
        assert (first.errors, second.errors) == ((), ())
        return first, second

    return of


def roots(guest: Any) -> list[Roots]:
    return [guest.roots(0), guest.roots(1)]


def test_the_layout_is_v2_and_every_way_of_naming_is_found(v2_guest: Any) -> None:
    for root in roots(v2_guest):
        layout = Layout.read(root)
        assert layout.mode == Mode.V2
        for name, pid in v2_guest.pids.items():
            # The writer's process has moved deeper; what counts is the container's own.
            paths = layout.process_paths(pid, v2_guest.ids[name])
            assert paths == {UNIFIED: v2_guest.cgroups[name]}
            assert layout.directories(paths) == {
                UNIFIED: root.sys / "fs/cgroup" / v2_guest.cgroups[name].lstrip("/")
            }


def test_half_a_cpu_is_half_a_cpu_and_throttled(
    v2_guest: Any, samplers: tuple[Sampler, Sampler], pair: Any
) -> None:
    first, second = pair("burner")
    seconds = (second.time_ns - first.time_ns) / 1e9
    assert seconds >= v2_guest.apart_seconds
    used = second.cpu.usage_seconds - first.cpu.usage_seconds
    assert used / seconds == pytest.approx(0.5, rel=0.15)
    assert (second.cpu.quota_us, second.cpu.period_us) == (50_000, 100_000)
    periods = second.cpu.periods - first.cpu.periods
    throttled = second.cpu.throttled_periods - first.cpu.throttled_periods
    assert periods == pytest.approx(seconds * 10, rel=0.15)
    assert 0.5 * periods < throttled <= periods
    waited = second.cpu.throttled_seconds - first.cpu.throttled_seconds
    assert waited == pytest.approx(seconds * 0.5, rel=0.4)
    assert second.cpu.user_seconds > 10 * second.cpu.system_seconds
    machine = samplers[1].machine
    row = stats_of(second, first, machine.topology.cores, machine.memory.total_bytes)
    assert row.cpu_percent == pytest.approx(50, rel=0.2)
    assert row.memory_limit_bytes == machine.memory.total_bytes


def test_what_is_not_limited_says_so(pair: Any) -> None:
    _, second = pair("holder")
    assert (second.cpu.quota_us, second.cpu.periods, second.cpu.throttled_seconds) == (None, None, None)
    assert second.cpu.shares == 2597  # weight 100 by the linear conversion
    _, second = pair("burner")
    assert (second.memory.limit_bytes, second.pids_limit) == (None, None)


def test_held_memory_is_anonymous_memory(v2_guest: Any, pair: Any) -> None:
    for sample in pair("holder"):
        memory = sample.memory
        assert v2_guest.held_bytes <= memory.rss_bytes < v2_guest.held_bytes + (2 << 20)
        assert memory.rss_bytes <= memory.usage_bytes < memory.rss_bytes + (2 << 20)
        assert memory.rss_bytes <= memory.working_set_bytes <= memory.usage_bytes
        assert memory.limit_bytes == v2_guest.holder_limit
        assert memory.page_faults >= v2_guest.held_bytes / 4096
        assert memory.oom_kills == 0
        assert (sample.pids, sample.pids_limit) == (v2_guest.holder_pids, 12)


def test_processes_threads_and_pages_by_node(v2_guest: Any, samplers: tuple[Sampler, Sampler]) -> None:
    """The writer's process is in a cgroup below its container's."""
    for sampler in samplers:
        targets = sampler.targets()
        holder = targets[v2_guest.ids["holder"]]
        assert len(processes(holder)) == len(threads(holder)) == v2_guest.holder_pids
        assert v2_guest.pids["writer"] in processes(targets[v2_guest.ids["writer"]])
        pages = {
            dict(labels)["type"]: value
            for _, labels, value in NumaGroup().read(holder)
            if dict(labels)["node"] == "0"
        }
        assert pages["anon"] == pytest.approx(v2_guest.held_bytes / 4096, rel=0.25)
        assert pages.keys() == {"anon", "file", "unevictable"}


def test_events_of_memory_and_tasks_and_averages_are_told(pair: Any) -> None:
    for sample in pair("burner"):
        memory = sample.memory
        assert (memory.low_events, memory.oom_events, memory.oom_group_kills) == (0, 0, 0)
        assert sample.pids_limit_events == 0
        assert 0 <= sample.pressure["memory"].full_avg10 <= sample.pressure["memory"].some_avg10
    assert sample.pressure["cpu"].some_avg10 > 0  # it waits for its quota half of the time


def test_a_kill_for_want_of_memory_is_counted_once(v2_guest: Any, pair: Any) -> None:
    first, second = pair("victim")
    assert (first.memory.oom_kills, second.memory.oom_kills) == (0, 1)
    assert first.memory.failures == 0
    assert second.memory.failures > 0
    assert second.memory.usage_bytes <= v2_guest.victim_limit
    assert (first.pids, second.pids) == (1, 1)  # the first process lives on, and is not what was killed


def test_direct_writes_are_counted_to_the_byte(v2_guest: Any, pair: Any) -> None:
    for number, sample in enumerate(pair("writer"), 1):
        (device,) = sample.block_io
        assert device.write_bytes == number * v2_guest.written_bytes
        assert device.writes == number * v2_guest.writes
        assert device.read_bytes == 0
    (disk,) = [d for d in pair(HOST)[1].disks if d.number == device.device]
    assert disk.device == "/dev/nvme0n1"
    assert disk.sectors_written * 512 == device.write_bytes


def test_pressure_is_what_the_quota_made(pair: Any) -> None:
    first, second = pair("burner")
    assert set(second.pressure) == {"cpu", "memory", "io"}
    seconds = (second.time_ns - first.time_ns) / 1e9
    waited = second.pressure["cpu"].some_seconds - first.pressure["cpu"].some_seconds
    assert 0.3 * seconds < waited <= seconds
    assert second.pressure["cpu"].full_seconds > first.pressure["cpu"].full_seconds
    first, second = pair("writer")
    assert second.pressure["io"].some_seconds > 0


def test_the_host_is_all_of_them(pair: Any) -> None:
    first, second = pair(HOST)
    burned = [s.cpu.usage_seconds for s in pair("burner")]
    assert second.cpu.usage_seconds - first.cpu.usage_seconds > 0.9 * (burned[1] - burned[0])
    held = pair("holder")[1].memory.rss_bytes
    assert held < second.memory.rss_bytes < second.memory.limit_bytes


def test_the_engine_reads_the_same_as_the_sampler(v2_guest: Any, pair: Any) -> None:
    for container in v2_guest.containers():
        once = read_container(container, v2_guest.roots(1))
        sampled = pair(container.name)[1]
        assert isinstance(container, Container)
        assert (once.cpu, once.memory, once.block_io) == (sampled.cpu, sampled.memory, sampled.block_io)
        assert (once.pids, once.pressure) == (sampled.pids, sampled.pressure)
