"""Descriptors, threads and scheduling of processes of the test's own, and of recorded ones."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from collector.cgroup.layout import UNIFIED
from collector.lanes import processes as lane_processes
from collector.lanes.members import processes, threads
from collector.lanes.processes import ProcessGroup, SchedGroup, parse_limit, parse_schedstat
from collector.roots import Roots
from tests.collector.conftest import eventually
from tests.collector.lanes.conftest import Running, values

#: A child in the same cgroup, with three sockets and two files more than what Python opens itself.
CHILD = """
import os, socket
kept = [socket.socket() for _ in range(3)] + [open(os.devnull) for _ in range(2)]
"""


def one(found: dict[tuple[str, str], float], family: str, label: str = "") -> float:
    return found[f"container_{family}", label]


def test_processes_descriptors_and_sockets(run: Callable[..., Running]) -> None:
    """Standard input, output and error, three sockets, two files; a child that forked has them too."""
    container = run(CHILD + "import signal\nif os.fork() == 0: signal.pause()\n", network=False)
    found = container.read(ProcessGroup(Roots()))
    assert one(found, "processes") == 2
    assert one(found, "file_descriptors") == 2 * (3 + 3 + 2)
    assert one(found, "sockets") == 2 * 3


def test_the_limit_of_descriptors(run: Callable[..., Running]) -> None:
    code = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (321, 654))\n"
    found = run(code, network=False).read(ProcessGroup(Roots()))
    assert one(found, "ulimits_soft", "max_open_files") == 321


def test_no_limit_is_minus_one() -> None:
    data = b"Limit                     Soft Limit           Hard Limit           Units     \n"
    data += b"Max open files            unlimited            unlimited            files     \n"
    assert parse_limit(data, b"Max open files") == -1
    assert parse_limit(data, b"Max pending signals") is None


def test_processes_of_cgroups_below_count(run: Callable[..., Running]) -> None:
    container = run("import os, signal\npid = os.fork()\nif pid == 0: signal.pause()\n", network=False)
    target = container.target
    (child,) = (pid for pid in processes(target) if pid != container.process.pid)
    below = target.cgroup.directories["pids"] / "below"
    below.mkdir()
    try:
        (below / "cgroup.procs").write_text(str(child))
        assert sorted(processes(target)) == sorted([container.process.pid, child])
    finally:
        os.kill(child, signal.SIGKILL)
        eventually(lambda: not (below / "cgroup.procs").read_text())
        below.rmdir()


def test_time_of_threads_that_ended_stays_counted(run: Callable[..., Running]) -> None:
    """A thread that burned 0.2 s of CPU and ended between two readings: a sum of the living would fall."""
    code = """
import threading, time
def burn():
    end = time.thread_time() + 0.2
    while time.thread_time() < end: pass
    print("burnt", flush=True)
    go.wait()
go = threading.Event()
worker = threading.Thread(target=burn)
worker.start()
import sys
sys.stdin.readline()
go.set()
worker.join()
"""
    container = run("print('ready', flush=True)\n" + code, network=False)
    assert container.process.stdout.readline() == b"burnt\n"
    group = SchedGroup(Roots())
    before = container.read(group)
    container.process.stdin.write(b"\n")
    container.process.stdin.flush()
    assert container.process.stdout.readline() == b"ready\n"
    eventually(lambda: len(threads(container.target)) == 1)
    after = container.read(group)
    run_seconds = "cpu_schedstat_run_seconds_total"
    used = time.clock_gettime((~container.process.pid << 3) | 2)  # the process's own, with threads that ended
    assert 0.2 <= one(before, run_seconds) <= one(after, run_seconds) <= used
    assert one(after, "cpu_schedstat_run_periods_total") >= one(before, "cpu_schedstat_run_periods_total") > 0
    assert one(after, "cpu_schedstat_runqueue_seconds_total") > 0
    group.forget(container.container.id)
    assert one(container.read(group), run_seconds) < one(after, run_seconds)


def test_times_of_a_thread_elsewhere_that_got_a_number_are_not_summed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = recorded_tree(tmp_path, 2)
    group = SchedGroup(Roots(proc=tmp_path / "proc"))
    listed = lane_processes.threads
    numbers = listed(target)
    lists = iter((numbers, numbers[1:], numbers[1:], numbers[1:]))  # the first ends while it is read
    monkeypatch.setattr(lane_processes, "threads", lambda _: next(lists))
    first = values(group.read(target))
    monkeypatch.setattr(lane_processes, "threads", lambda _: numbers[1:])
    second = values(group.read(target))
    assert first == second
    monkeypatch.setattr(lane_processes, "threads", listed)
    whole = values(SchedGroup(Roots(proc=tmp_path / "proc")).read(target))
    assert one(first, "cpu_schedstat_run_seconds_total") < one(whole, "cpu_schedstat_run_seconds_total")


def test_a_schedstat_of_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match="expected three numbers"):
        parse_schedstat(b"0 0\n")


def recorded_tree(root: Path, version: int) -> Any:
    """A container of two processes, one with two threads, as its files on v1 or v2."""
    cgroup = root / "cgroup"
    (cgroup / "below").mkdir(parents=True)
    (cgroup / "cgroup.procs").write_text("10\n")
    (cgroup / "below/cgroup.procs").write_text("20\n")
    name = "tasks" if version == 1 else "cgroup.threads"
    (cgroup / name).write_text("10\n11\n")
    (cgroup / "below" / name).write_text("20\n")
    for tid, letter in ((10, "S"), (11, "D"), (20, "R")):
        directory = root / f"proc/{tid}"
        (directory / "fd").mkdir(parents=True)
        (directory / "stat").write_text(f"{tid} (odd) S name) {letter} 1 1 0\n")
        (directory / "schedstat").write_text(f"{tid}000000000 500000000 {tid}\n")
        (directory / "fd/0").symlink_to("/dev/null")
        (directory / "fd/1").symlink_to("socket:[123]")
    (root / "proc/self").mkdir()
    (root / "proc/self/schedstat").write_text("1 1 1\n")
    (root / "proc/10/limits").write_text(
        "Max open files            1024                 4096                 files\n"
    )
    directories = {"pids" if version == 1 else UNIFIED: cgroup}
    return SimpleNamespace(
        cgroup=SimpleNamespace(directories=directories), pid=10, container=SimpleNamespace(id="x")
    )


@pytest.mark.parametrize("version", [1, 2])
def test_a_recorded_container(tmp_path: Path, version: int) -> None:
    target = recorded_tree(tmp_path, version)
    roots = Roots(proc=tmp_path / "proc")
    found = values(ProcessGroup(roots).read(target))
    assert one(found, "processes") == 2
    assert one(found, "file_descriptors") == 4
    assert one(found, "sockets") == 2
    assert one(found, "ulimits_soft", "max_open_files") == 1024
    found = values(SchedGroup(roots).read(target))
    assert one(found, "cpu_schedstat_run_seconds_total") == 41
    assert one(found, "cpu_schedstat_runqueue_seconds_total") == 1.5
    assert one(found, "cpu_schedstat_run_periods_total") == 41


def test_a_process_that_ended_meanwhile_costs_the_others_nothing(tmp_path: Path) -> None:
    target = recorded_tree(tmp_path, 2)
    (tmp_path / "cgroup/cgroup.procs").write_text("10\n99\n")
    found = values(ProcessGroup(Roots(proc=tmp_path / "proc")).read(target))
    assert one(found, "file_descriptors") == 4


def test_a_kernel_without_schedstat_has_no_series(tmp_path: Path) -> None:
    target = recorded_tree(tmp_path, 2)
    (tmp_path / "proc/self/schedstat").unlink()
    assert SchedGroup(Roots(proc=tmp_path / "proc")).read(target) == ()
