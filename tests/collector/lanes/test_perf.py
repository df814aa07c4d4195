"""Events of processes of the test's own, counted by the kernel for their cgroup."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collector.cgroup.layout import UNIFIED
from collector.lanes import perf
from collector.lanes.perf import EVENTS, PerfGroup
from collector.roots import Roots
from tests.collector.lanes.conftest import Running

COUNT, RATIO = "container_perf_events_total", "container_perf_events_scaling_ratio"

#: A child that sleeps a thousand times, each of which takes it from its CPU, when it is told to.
SLEEPER = """
import os, resource, time
begin, told = os.pipe()
if os.fork() == 0:
    os.read(begin, 1)
    for _ in range(1000): time.sleep(0.00001)
    os._exit(0)
def switches():
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_nvcsw + one.ru_nivcsw for one in used)
print(switches(), flush=True)
sys.stdin.readline()
os.write(told, b"x")
os.wait()
print(switches(), flush=True)
"""


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_thousand_sleeps_are_as_many_switches(run: Callable[..., Running]) -> None:
    container = run("import sys\nprint('ready', flush=True)\n" + SLEEPER, network=False)
    counted = int(container.process.stdout.readline())
    group = PerfGroup(Roots())
    before = container.read(group)
    container.process.stdin.write(b"\n")
    container.process.stdin.flush()
    # Others on the host make more of them; the kernel counts them for the processes, too.
    counted = int(container.process.stdout.readline()) - counted
    assert container.process.stdout.readline() == b"ready\n"
    after = container.read(group)
    switches = (COUNT, "context-switches")
    assert 1000 <= after[switches] - before[switches] == pytest.approx(counted, abs=50)
    assert 0 < after[RATIO, "context-switches"] <= 1
    group.forget(container.container.id)


def test_an_event_the_processor_does_not_have_is_left_out(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(perf.EVENTS, "nonsense", (0, 12345))
    group = PerfGroup(Roots())
    container = run(network=False)
    found = container.read(group)
    assert (COUNT, "nonsense") not in found
    assert (COUNT, "cpu-migrations") in found
    group.forget(container.container.id)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_descriptors_are_given_back(run: Callable[..., Running]) -> None:
    container = run(network=False)
    group = PerfGroup(Roots())
    before = open_files()
    container.read(group)
    assert open_files() > before
    group.forget(container.container.id)
    assert open_files() == before


def test_containers_there_are_no_descriptors_for_are_counted(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = run(network=False), run(network=False)
    group = PerfGroup(Roots())
    before = descriptors()
    assert first.read(group)
    own = descriptors() - before
    assert own > 1
    for most in (own, 2 * own - 1):  # room for a part of the second is none
        monkeypatch.setattr(perf, "MAX_DESCRIPTORS", most)
        assert second.read(group) == {}
        assert descriptors() - before == own
    assert group.cut == 2
    group.forget(first.container.id)
    assert second.read(group)
    group.forget(second.container.id)
    late = PerfGroup(Roots())  # which does not know what a container takes
    monkeypatch.setattr(perf, "MAX_DESCRIPTORS", own - 1)
    assert first.read(late) == {}
    assert (late.cut, descriptors()) == (1, before)


def test_counters_that_were_shared_out_are_scaled_up(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of a CPU's time the counter had half."""
    half = tmp_path / "half"
    half.write_bytes((300).to_bytes(8, "little") + (1000).to_bytes(8, "little") + (500).to_bytes(8, "little"))

    def opened(event: tuple[int, int], cgroup: int, cpu: int) -> int:
        return os.open(half, os.O_RDONLY)

    monkeypatch.setattr(perf, "_open", opened)
    container = run(network=False)
    group = PerfGroup(Roots())
    found: Any = container.read(group)
    assert {name for _, name in found} == set(EVENTS)
    assert (found[COUNT, "cycles"], found[RATIO, "cycles"]) == (600 * (os.cpu_count() or 1), 0.5)
    group.forget(container.container.id)


def test_a_cgroup_that_ends_while_its_events_are_opened_says_nothing_about_them(
    make_cgroup: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel answers as it does for an event it does not have."""
    directories = [made.directories[UNIFIED] for made in (make_cgroup(), make_cgroup())]
    group, opened = PerfGroup(Roots()), perf._open

    def ended(event: tuple[int, int], cgroup: int, cpu: int) -> int:
        if directories[0].exists():
            directories[0].rmdir()
        return opened(event, cgroup, cpu)

    monkeypatch.setattr(perf, "_open", ended)
    before = open_files()
    with pytest.raises(FileNotFoundError):
        group._open_all(directories[0])
    assert open_files() == before
    kept = group._open_all(directories[1])
    assert {"context-switches", "cpu-migrations"} <= kept.keys()
    group._close(kept)
