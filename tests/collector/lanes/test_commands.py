"""CPU time and memory of processes of the test's own, by the groups ``commands`` and ``referenced_memory``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from collector.cgroup.layout import UNIFIED
from collector.lanes.commands import (
    MAX_COMMANDS,
    CommandGroup,
    ReferencedGroup,
    parse_process,
    parse_referenced,
)
from collector.roots import Roots
from tests.collector.conftest import eventually
from tests.collector.lanes.conftest import Running, values

CPU, RSS = "container_command_cpu_seconds_total", "container_command_memory_rss_bytes"
PROCESSES = "container_command_processes"

#: A child that has burned half a second of CPU, and two that hold 40 MB each.
LOADS = """
import os, time, signal
def child(name, work):
    end, begin = os.pipe()
    pid = os.fork()
    if pid == 0:
        open("/proc/self/comm", "w").write(name)
        kept = work()
        os.write(begin, b"x")
        signal.pause()
    os.read(end, 1)

def burn():
    while time.process_time() < 0.5: pass
def hold():
    return bytearray(b"x" * (40 << 20))
child("burn er) S", burn)
for _ in range(2): child("holder", hold)
"""


def test_commands_by_cpu_time_and_memory(run: Callable[..., Running]) -> None:
    container = run(LOADS, network=False)
    found = container.read(CommandGroup(Roots()))
    assert 0.45 <= found[CPU, "burn er) S"] < 0.7
    assert 80 << 20 < found[RSS, "holder"] < 160 << 20
    assert (found[PROCESSES, "holder"], found[PROCESSES, "burn er) S"]) == (2, 1)


def stat(pid: int, name: str, ticks: int, pages: int = 1, start: int = 7) -> str:
    fields = ["S", *"1111111111", str(ticks), "0", *"000000", str(start), "0", str(pages), "0"]
    assert fields[11] == str(ticks)
    return f"{pid} ({name}) {' '.join(fields)}\n"


@pytest.fixture
def recorded(tmp_path: Path) -> Callable[..., Any]:
    """A container on v2 of these processes: name, ticks, pages and start."""

    def write(**processes: tuple[Any, ...]) -> Any:
        cgroup = tmp_path / "cgroup"
        cgroup.mkdir(exist_ok=True)
        (cgroup / "cgroup.procs").write_text("".join(f"{key.removeprefix('p')}\n" for key in processes))
        for key, process in processes.items():
            pid = key.removeprefix("p")
            (tmp_path / "proc" / pid).mkdir(parents=True, exist_ok=True)
            (tmp_path / "proc" / pid / "stat").write_text(stat(int(pid), *process))
        return SimpleNamespace(
            cgroup=SimpleNamespace(directories={UNIFIED: cgroup}), container=SimpleNamespace(id="x")
        )

    return write


def test_time_of_processes_that_ended_stays_counted(tmp_path: Path, recorded: Callable[..., Any]) -> None:
    group = CommandGroup(Roots(proc=tmp_path / "proc"))
    group.read(recorded(p1=("web", 100), p2=("web", 200)))
    found = values(group.read(recorded(p1=("web", 150))))
    assert found[CPU, "web"] == 3.5
    found = values(group.read(recorded(p1=("web", 10, 1, 8))))  # another process with the same number
    assert found[CPU, "web"] == 3.6
    found = values(group.read(recorded(p1=("shell", 30, 1, 8))))  # which executes another command
    assert (found[CPU, "web"], found[CPU, "shell"]) == (3.6, 0.2)
    assert found[PROCESSES, "web"] == 0
    group.forget("x")
    assert values(group.read(recorded(p1=("shell", 30, 1, 8))))[CPU, "shell"] == 0.3


def test_commands_over_the_limit_are_left_out_and_counted(
    tmp_path: Path, recorded: Callable[..., Any]
) -> None:
    group = CommandGroup(Roots(proc=tmp_path / "proc"))
    target = recorded(**{f"p{n}": (f"c{n}", n, 100 - n) for n in range(1, 2 * MAX_COMMANDS + 4)})
    shown = {name for family, name in values(group.read(target)) if family == CPU}
    assert shown == {*(f"c{n}" for n in range(1, 6)), *(f"c{n}" for n in range(9, 14))}
    assert group.cut == 3


def test_memory_that_was_used_is_referenced(run: Callable[..., Running]) -> None:
    code = "import os\nheld = bytearray(b'x' * (30 << 20))\n"
    container = run(code, network=False)
    name = ("container_referenced_bytes", "")
    before = container.read(ReferencedGroup(Roots()))[name]
    assert 30 << 20 < before < 60 << 20
    Path(f"/proc/{container.process.pid}/clear_refs").write_text("1\n")
    eventually(lambda: container.read(ReferencedGroup(Roots()))[name] < 5 << 20)


def test_other_forms() -> None:
    with pytest.raises(ValueError, match="expected a name in parentheses"):
        parse_process(b"12 (short) S 1\n")
    assert parse_referenced(b"") == 0
