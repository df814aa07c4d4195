"""Containers' processes and threads, by known loads on this kernel."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from burning_program import burning_program

from collector.container import Container
from collector.discovery.registry import Containers
from collector.processes import reading, tree
from collector.processes.members import Members, NotRunning
from collector.processes.reading import read_process, read_threads
from collector.processes.tree import Processes

Program = Callable[..., "subprocess.Popen[str]"]


def container(cgroup: Path, **changes: object) -> Container:
    return Container(f"/{cgroup.name}", "web", cgroup=f"/{cgroup.name}", **changes)  # type: ignore[arg-type]


def test_the_burning_thread_is_found_by_its_name(program: Program, until: Callable[..., None]) -> None:
    burner = program(burning_program(waiting=3))
    processes = Processes(Containers())
    assert processes.threads(burner.pid).interval_seconds is None, "nothing to compare with yet"
    clock = (~burner.pid << 3) | 2
    burnt = time.clock_gettime(clock) + 0.3
    until(lambda: time.clock_gettime(clock) > burnt, "0.3 s of CPU")
    threading.Event().wait(0.5)  # for the shortest interval there is
    listing = processes.threads(burner.pid)
    by_cpu = sorted(listing.rows, key=lambda thread: thread.cpu_percent or 0.0)
    assert by_cpu[-1].name == "the-burner"
    assert (by_cpu[-1].cpu_percent or 0) > 5 * max(0.1, by_cpu[-2].cpu_percent or 0)
    names = sorted(thread.name for thread in listing.rows if thread.name.startswith("idle"))
    assert names == ["idle-0", "idle-1", "idle-2"]
    assert listing.interval_seconds is not None


def test_a_containers_processes_are_its_cgroups_and_those_below(program: Program, cgroup: Path) -> None:
    inner = cgroup / "inner"
    inner.mkdir()
    first, second, other = program("pass"), program("pass"), program("pass")
    (cgroup / "cgroup.procs").write_text(str(first.pid))
    (inner / "cgroup.procs").write_text(str(second.pid))
    containers = Containers()
    web = container(cgroup)
    containers.update(web)
    listing = Processes(containers).of_container(web)
    assert {process.pid for process in listing.rows} == {first.pid, second.pid}
    one = next(process for process in listing.rows if process.pid == first.pid)
    assert (one.container, one.user, one.threads, one.parent) == ("web", "root", 1, os.getpid())
    assert one.command.startswith(f"{sys.executable} -I -S -c import sys")
    assert 0 < one.shared_bytes < one.resident_bytes < one.virtual_bytes
    host = Processes(containers).of_host()
    names = {process.pid: process.container for process in host.rows}
    assert (names[first.pid], names[second.pid], names[other.pid]) == ("web", "web", "")
    for process in (first, second):
        process.communicate("")


def test_of_very_many_the_rest_is_counted(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    burner = program(burning_program(waiting=3))
    monkeypatch.setattr("collector.processes.tree.MAX_ROWS", 2)
    threads = Processes(Containers()).threads(burner.pid)
    assert (len(threads.rows), threads.left_out) == (2, 3)
    host = Processes(Containers()).of_host()
    assert len(host.rows) + host.vanished == 2
    assert host.left_out > 0


def test_cpu_time_is_what_the_process_says_itself(program: Program) -> None:
    process = program(
        "import time\nwhile time.process_time() < 0.3: pass\nprint('ready', flush=True)\n"
        "for _ in sys.stdin: print(time.process_time(), flush=True)"
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def told() -> float:
        process.stdin.write("\n")
        process.stdin.flush()
        return float(process.stdout.readline())

    before = told()
    found = read_process(Path("/proc"), process.pid).cpu_ns / 1e9
    assert 0.3 <= before <= found + 0.02 <= told() + 0.04  # within two of the kernel's ticks
    process.communicate("")


def test_bytes_written_show_as_a_rate(program: Program, on_disk: Path, until: Callable[..., None]) -> None:
    code = f"""
import os, threading
def write():
    fd = os.open({str(on_disk / "data")!r}, os.O_WRONLY | os.O_CREAT)
    while True:
        os.pwrite(fd, bytes(1 << 20), 0); os.fdatasync(fd)
threading.Thread(target=write, daemon=True).start()
"""
    process = program(code)
    processes = Processes(Containers())
    processes.threads(process.pid)
    until(lambda: (read_process(Path("/proc"), process.pid).io or (0, 0))[1] > 1 << 20, "a written megabyte")
    threading.Event().wait(0.5)
    until(
        lambda: any((t.write_bytes_per_second or 0) > 1000 for t in processes.threads(process.pid).rows),
        "the rate of the thread that writes",
    )


def test_a_container_without_processes_says_its_state(cgroup: Path) -> None:
    processes = Processes(Containers())
    with pytest.raises(NotRunning, match="container web is exited: it has no processes"):
        processes.of_container(container(cgroup, state="exited"))
    assert processes.of_container(container(cgroup)).rows == ()
    with pytest.raises(NotRunning, match="no cgroup any more"):
        processes.of_container(Container("/nowhere", "gone", cgroup="/nowhere"))


def test_a_process_that_ends_while_it_is_read_is_counted_and_costs_the_others_nothing(
    program: Program, monkeypatch: pytest.MonkeyPatch, cgroup: Path
) -> None:
    victim, other = program("pass"), program("pass")
    for process in (victim, other):
        (cgroup / "cgroup.procs").write_text(str(process.pid))
    real = reading._read

    def read(directory: int, name: str) -> bytes:
        if name == "statm" and str(Path(f"/proc/self/fd/{directory}").readlink()) == f"/proc/{victim.pid}":
            victim.kill()
            victim.wait()
        return real(directory, name)

    monkeypatch.setattr(reading, "_read", read)
    listing = Processes(Containers()).of_container(container(cgroup))
    assert [process.pid for process in listing.rows] == [other.pid]
    assert listing.vanished == 1
    other.communicate("")


def test_a_number_that_left_the_cgroup_while_it_was_read_is_nobody_of_the_containers(
    program: Program, monkeypatch: pytest.MonkeyPatch, cgroup: Path
) -> None:
    """As when the process ends after the list was read, and one elsewhere gets its number."""
    stranger, member = program("pass"), program("pass")
    for process in (stranger, member):
        (cgroup / "cgroup.procs").write_text(str(process.pid))
    web = container(cgroup)
    read = tree.read_process

    def elsewhere(proc: Path, pid: int, known: object = None) -> object:
        if pid == stranger.pid:
            (cgroup.parent / "cgroup.procs").write_text(str(pid))
        return read(proc, pid)

    monkeypatch.setattr(tree, "read_process", elsewhere)
    processes = Processes(Containers())
    listing = processes.of_container(web)
    assert [process.pid for process in listing.rows] == [member.pid]
    assert listing.vanished == 1
    assert processes.members.still(web, [stranger.pid, member.pid]) == {member.pid}
    assert processes.members.still(Container("/nowhere", "gone", cgroup="/nowhere"), [member.pid]) == set()
    for process in (stranger, member):
        process.communicate("")


def test_another_process_with_the_number_is_refused(program: Program) -> None:
    process = program("pass")
    started = read_process(Path("/proc"), process.pid).stat.start_ticks
    assert read_threads(Path("/proc"), process.pid, started)[0]
    with pytest.raises(ProcessLookupError, match="another one by now"):
        read_threads(Path("/proc"), process.pid, started - 1)
    process.communicate("")
    with pytest.raises(FileNotFoundError):
        read_threads(Path("/proc"), process.pid, started)


def fake_process(proc: Path, pid: int, start: int, ticks: int, name: str) -> None:
    directory = proc / str(pid)
    directory.mkdir(parents=True, exist_ok=True)
    fields = f"S 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 {start} 0 0"
    (directory / "stat").write_text(f"{pid} ({name}) {fields}")
    (directory / "statm").write_text("10 5 2 0 0 0 0")
    (directory / "status").write_text("Name:\tx\nUid:\t0\t0\t0\t0\n")
    (directory / "cmdline").write_bytes(name.encode() + b"\0")
    (directory / "io").write_text("rchar: 0\nwchar: 0\nread_bytes: 0\nwrite_bytes: 0\n")


def test_a_reused_number_is_not_charged_with_its_predecessors_time(tmp_path: Path) -> None:
    """Procfs is a tree of files here, since numbers come round on a real one when they like to."""
    proc = tmp_path / "proc"
    for name in ("self", "cgroup"):
        (proc / name).mkdir(parents=True)
    mountinfo = "1 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n"
    (proc / "self/mountinfo").write_text(mountinfo)
    roots = reading_roots(proc, tmp_path)
    processes = Processes(Containers(), roots)
    fake_process(proc, 7, start=1000, ticks=50_000, name="old")
    assert processes.of_host().rows[0].cpu_percent is None
    threading.Event().wait(0.45)
    fake_process(proc, 7, start=2000, ticks=0, name="new")
    (row,) = processes.of_host().rows
    assert (row.name, row.command, row.cpu_seconds, row.cpu_percent) == ("new", "new", 0.0, 0.0)


def reading_roots(proc: Path, root: Path):  # type: ignore[no-untyped-def]
    from collector.roots import Roots

    return Roots(proc, root / "sys", root)


def test_the_owner_is_the_inner_of_two_nested_containers(program: Program, cgroup: Path) -> None:
    inner = cgroup / "pod"
    inner.mkdir()
    process = program("pass")
    (inner / "cgroup.procs").write_text(str(process.pid))
    other = program("pass")
    (cgroup / "cgroup.procs").write_text(str(other.pid))
    containers = Containers()
    containers.update(container(cgroup))
    path = f"/{cgroup.name}/pod"
    containers.update(Container(path, "inside", cgroup=path))
    from collector.cgroup.layout import Layout
    from collector.roots import Roots

    owners = Members(containers, Layout.read(Roots()), Path("/proc")).owners()
    assert (owners[process.pid].name, owners[other.pid].name) == ("inside", "web")
    for one in (process, other):
        one.communicate("")
