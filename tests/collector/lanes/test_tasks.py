"""Threads whose state is known, counted by the group ``cpuLoad``, and the load that they make."""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from collector.cgroup.layout import UNIFIED
from collector.lanes.members import threads
from collector.lanes.tasks import CgroupStats, TaskGroup, average
from collector.roots import Roots
from tests.collector.conftest import eventually
from tests.collector.lanes.conftest import Running, values

THREADS = """
import threading
for _ in range(4): threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
LOAD, LOAD_D = ("container_cpu_load_average_10s", ""), ("container_cpu_load_d_average_10s", "")


def state(found: dict[tuple[str, str], float]) -> dict[str, float]:
    return {state: value for (family, state), value in found.items() if family == "container_tasks_state"}


def states(container: Running) -> dict[str, float]:
    """As they are now: a group that goes on reads them seldom."""
    return state(container.read(TaskGroup(Roots())))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_threads_sleep(run: Callable[..., Running]) -> None:
    container = run(THREADS, network=False)
    assert len(threads(container.target)) == 5
    asleep = {"sleeping": 5, "running": 0, "stopped": 0, "uninterruptible": 0}
    eventually(
        lambda: {key: value for key, value in states(container).items() if key != "iowaiting"} == asleep
    )


def test_a_stopped_process(run: Callable[..., Running]) -> None:
    container = run(
        "import os, signal\nif (pid := os.fork()) == 0: signal.pause()\nos.kill(pid, 19)\n", False
    )
    eventually(lambda: states(container)["stopped"] == 1)


def test_a_process_that_cannot_be_interrupted(run: Callable[..., Running], tmp_path: Path) -> None:
    """The parent of a child that has yet to execute its program waits in the kernel."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code = f"""
opening = [(os.POSIX_SPAWN_OPEN, 0, {str(pipe)!r}, os.O_RDONLY, 0)]
if os.fork() == 0:
    os.posix_spawn("/bin/true", ["true"], {{}}, file_actions=opening)
    os._exit(0)
"""
    container = run(code, network=False)
    eventually(lambda: states(container)["uninterruptible"] == 1)
    with pipe.open("wb"):
        eventually(lambda: states(container)["uninterruptible"] == 0)


def test_threads_that_run_are_the_load(run: Callable[..., Running]) -> None:
    code = "import os, threading\nfor _ in range(3):\n if os.fork() == 0:\n  while True: pass\n"
    container = run(code, network=False)
    clock = Clock()
    group = TaskGroup(Roots(), clock=clock)
    eventually(lambda: states(container)["running"] == 3)
    assert container.read(group)[LOAD] == 3000
    clock.now += 10
    assert container.read(group)[LOAD] == 3000
    group.forget(container.container.id)
    container.process.kill()


def test_the_load_decays_over_ten_seconds(tmp_path: Path) -> None:
    clock = Clock()
    target = recorded(tmp_path, "RRDS")
    group = TaskGroup(Roots(proc=tmp_path / "proc"), clock=clock)
    found = values(group.read(target))
    assert (found[LOAD], found[LOAD_D]) == (2000, 1000)
    for tid in range(4):
        (tmp_path / f"proc/{tid}/stat").write_text(f"{tid} (x) S 1 1 0\n")
    clock.now += 10
    found = values(group.read(target))
    assert (found[LOAD], found[LOAD_D]) == (int(2000 / math.e), int(1000 / math.e))
    assert average(4, 0, 20) == pytest.approx(4 * math.exp(-2))


def recorded(root: Path, letters: str) -> Any:
    """A container on v2 with a thread for each letter, its state."""
    cgroup = root / "cgroup"
    cgroup.mkdir()
    (cgroup / "cgroup.threads").write_text("".join(f"{tid}\n" for tid in range(len(letters))))
    for tid, letter in enumerate(letters):
        (root / f"proc/{tid}").mkdir(parents=True)
        (root / f"proc/{tid}/stat").write_text(f"{tid} (odd) S name) {letter} 1 1 0\n")
    return SimpleNamespace(
        cgroup=SimpleNamespace(directories={UNIFIED: cgroup}), container=SimpleNamespace(id="x")
    )


def test_on_v2_nobody_tells_who_waits_for_io(tmp_path: Path) -> None:
    found = values(TaskGroup(Roots(proc=tmp_path / "proc")).read(recorded(tmp_path, "SRRDTtZ")))
    assert state(found) == {"sleeping": 1, "running": 2, "stopped": 2, "uninterruptible": 1}


def test_a_thread_that_ended_meanwhile_is_in_no_state(tmp_path: Path) -> None:
    target = recorded(tmp_path, "SS")
    (tmp_path / "proc/1/stat").unlink()
    assert state(values(TaskGroup(Roots(proc=tmp_path / "proc")).read(target)))["sleeping"] == 1


def test_many_threads_are_looked_at_less_often(tmp_path: Path) -> None:
    clock = Clock()
    target = recorded(tmp_path, "S" * 40)
    group = TaskGroup(Roots(proc=tmp_path / "proc"), clock=clock)
    group.read(target)
    (tmp_path / "proc/0/stat").write_text("0 (x) R 1 1 0\n")
    clock.now += 10
    assert state(values(group.read(target)))["running"] == 0
    clock.now += 20
    assert state(values(group.read(target)))["running"] == 1


@pytest.fixture
def slow_disk(make_cgroup: Any, tmp_path: Path) -> Iterator[tuple[Path, Any]]:
    """A block device of which a cgroup may read 4 KiB a second, and the cgroup."""
    image = tmp_path / "image"
    image.write_bytes(os.urandom(1 << 20))
    made = make_cgroup()
    device = subprocess.check_output(["losetup", "-f", "--show", image], text=True).strip()
    number = Path(device).stat().st_rdev
    limit = made.directories["blkio"] / "blkio.throttle.read_bps_device"
    try:
        limit.write_text(f"{os.major(number)}:{os.minor(number)} 4096")
        yield Path(device), made
    finally:
        limit.write_text(f"{os.major(number)}:{os.minor(number)} 0")
        for process in made.processes:
            process.wait()
        subprocess.run(["losetup", "-d", device], check=True)


def test_a_read_from_a_slow_disk_waits_for_io(slow_disk: tuple[Path, Any]) -> None:
    device, made = slow_disk
    made.python(f"fd = os.open({str(device)!r}, os.O_RDONLY)\nos.pread(fd, 65536, 0)\n")
    kernel = CgroupStats()
    eventually(lambda: kernel.read(made.directories["cpu"])[4] == 1)


def test_a_cgroup_of_v2_is_none_the_kernel_counts(make_cgroup: Any) -> None:
    with pytest.raises(OSError, match="netlink"):
        CgroupStats().read(make_cgroup().directories[UNIFIED])
