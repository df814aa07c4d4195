"""Groups ``commands`` and ``referenced_memory``: what in a container uses the CPU and the memory, read from procfs.

``commands`` sums up processes by the name of their command and shows the largest, ours; ``referenced_memory`` is
cAdvisor's. Formats: proc(5). Single processes are told by ``collector/processes/``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from collector.cgroup.files import read_whole
from collector.lanes.board import Reading
from collector.lanes.members import processes
from collector.roots import Roots
from collector.target import Target

__all__ = ["MAX_COMMANDS", "CommandGroup", "ReferencedGroup", "parse_process", "parse_referenced"]

#: Commands of one container that get series: so many by CPU time, and so many by memory.
MAX_COMMANDS = 5
_REMEMBERED = 256

_PAGE = os.sysconf("SC_PAGE_SIZE")
_HERTZ = os.sysconf("SC_CLK_TCK")
_ENDED = frozenset({errno.ENOENT, errno.ESRCH})
_USER, _START, _RSS = 11, 19, 21  # fields 14, 22 and 24, counted behind the name


def parse_process(data: bytes) -> tuple[str, int, int, int]:
    """``/proc/PID/stat``: name, ticks of CPU time, pages in memory, start in ticks after boot.

    Raises ValueError on another format.
    """
    begin, end = data.find(b"("), data.rfind(b") ")
    words = data[end + 2 :].split()
    if begin < 0 or len(words) <= _RSS:
        raise ValueError(f"stat {data[:60]!r}: expected a name in parentheses and 22 fields behind it")
    name = data[begin + 1 : end].decode(errors="replace")
    return name, int(words[_USER]) + int(words[_USER + 1]), int(words[_RSS]), int(words[_START])


def parse_referenced(data: bytes) -> int:
    """``/proc/PID/smaps_rollup``: bytes marked as referenced; 0 of a process without memory of its own."""
    for line in data.split(b"\n"):
        if line.startswith(b"Referenced:"):
            return int(line.split()[1]) * 1024
    return 0


class CommandGroup:
    """CPU time, memory and number of processes by the name of their command, of the largest."""

    name = "commands"

    def __init__(self, roots: Roots, seconds: float = 30.0) -> None:
        self.seconds = seconds
        self.cut = 0  #: commands left out, over ``MAX_COMMANDS``, summed over readings
        self._proc = roots.proc
        self._living: dict[str, dict[tuple[int, int], int]] = {}  # ticks by process and its start
        self._ticks: dict[str, dict[str, int]] = {}  # of ended ones, too, as far as they were seen

    def read(self, target: Target) -> Sequence[Reading]:
        """Raise OSError, ValueError."""
        key = target.container.id
        before, now = self._living.get(key, {}), {}
        ticks = self._ticks.setdefault(key, {})
        pages: dict[str, int] = {}
        count: dict[str, int] = {}
        for pid in processes(target):
            try:
                name, used, resident, start = parse_process(read_whole(self._proc / str(pid), "stat"))
            except OSError as error:
                if error.errno not in _ENDED:
                    raise
                continue
            now[pid, start] = used
            ticks[name] = ticks.get(name, 0) + used - before.get((pid, start), 0)
            pages[name] = pages.get(name, 0) + resident
            count[name] = count.get(name, 0) + 1
        self._living[key] = now
        by_time = sorted(ticks, key=lambda name: (-ticks[name], name))
        for name in [name for name in by_time[_REMEMBERED:] if name not in count]:
            del ticks[name]
        by_size = sorted(pages, key=lambda name: (-pages[name], name))
        shown = sorted({*by_time[:MAX_COMMANDS], *by_size[:MAX_COMMANDS]})
        self.cut += len(ticks.keys() - set(shown))
        readings = []
        for name in shown:
            labels = (("command", name),)
            readings += [
                Reading("container_command_cpu_seconds_total", labels, ticks[name] / _HERTZ),
                Reading("container_command_memory_rss_bytes", labels, pages.get(name, 0) * _PAGE),
                Reading("container_command_processes", labels, count.get(name, 0)),
            ]
        return readings

    def forget(self, container_id: str) -> None:
        """The container has ended."""
        self._living.pop(container_id, None)
        self._ticks.pop(container_id, None)


class ReferencedGroup:
    """Memory the processes have used since the kernel last looked; as in cAdvisor nothing is reset."""

    name = "referenced_memory"

    def __init__(self, roots: Roots, seconds: float = 60.0) -> None:
        self.seconds = seconds
        self._proc = roots.proc

    def read(self, target: Target) -> Sequence[Reading]:
        """Raise OSError, ValueError; nothing on a kernel before 4.14."""
        if not (self._proc / "self/smaps_rollup").exists():
            return ()
        total = 0
        for pid in processes(target):
            try:
                total += parse_referenced(read_whole(self._proc / str(pid), "smaps_rollup"))
            except OSError as error:
                if error.errno not in _ENDED:
                    raise
        return (Reading("container_referenced_bytes", (), total),)
