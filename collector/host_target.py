"""The host under the sampler's eye: its root cgroup, interfaces, disks and CPU time, as a container's sample.

Kept open as long as the sampler lives. Containers are ``target.py``'s.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from collector.cgroup.layout import Layout
from collector.cgroup.reader import CgroupReader
from collector.history import History
from collector.host.cpu import HostCpu, parse_stat
from collector.host.disks import block_io, parse_diskstats
from collector.host.memory import memory_in_use
from collector.netns import parse_net_dev
from collector.roots import Roots
from collector.sample import Cpu, Memory, Sample

__all__ = ["HostTarget"]

#: The kernel brings CPU time up to date with its ticks, 10 ms apart at most: from one reading to the next it may
#: grow by so much more than there was time.
_TICK_NS = 20_000_000


class HostTarget:
    """The host's root cgroup, interfaces, disks and CPU time."""

    def __init__(self, layout: Layout, roots: Roots, history: History, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._cgroup = CgroupReader(layout, layout.everywhere("/"))
        self._stat = os.open(roots.proc / "stat", os.O_RDONLY | os.O_CLOEXEC)
        self._disks = os.open(roots.proc / "diskstats", os.O_RDONLY | os.O_CLOEXEC)
        self._meminfo = os.open(roots.proc / "meminfo", os.O_RDONLY | os.O_CLOEXEC)
        self._net = roots.proc / "1/net/dev"
        if not os.access(self._net, os.R_OK):
            self._net = roots.proc / "net/dev"
        self.namespace_inodes = {_inode(roots.proc / name / "ns/net") for name in ("1", "self")}
        self.latest: Sample | None = None
        self.previous: Sample | None = None
        self.history = history

    def cpu(self) -> HostCpu:
        """The host's CPU time now. Raises OSError or ValueError."""
        return parse_stat(_whole(self._stat))

    def read(self, now_ns: int, begun: int) -> HostCpu:
        """Take the host's sample. Raises OSError or ValueError where ``/proc/stat`` cannot be read.

        ``now_ns`` was the time when the monotonic clock showed ``begun``.
        """
        cpu = self.cpu()
        sample = self._cgroup.read(now_ns, self.latest)
        latest_ns = now_ns + time.monotonic_ns() - begun
        disks = parse_diskstats(_whole(self._disks))
        memory = self._memory(sample.memory)
        used = sample.cpu or Cpu(cpu.user_seconds + cpu.system_seconds, cpu.user_seconds, cpu.system_seconds)
        self.previous, self.latest = (
            self.latest,
            replace(
                sample,
                time_ns=_time_of(now_ns, latest_ns, used, self.latest, cpu.online),
                cpu=used,
                memory=memory,
                interfaces=parse_net_dev(self._net.read_bytes()),
                # Not the root cgroup's own: v1 has none, and v2's is the same without merges and times.
                block_io=tuple(map(block_io, disks)),
                disks=disks,
                host_cpu_seconds=cpu.total_seconds,
            ),
        )
        self.history.append(self.latest)
        return cpu

    def _memory(self, counted: Memory | None) -> Memory:
        """With what v2's root cgroup leaves to ``/proc/meminfo``: swap, before Linux 5.8 all of it."""
        if counted is None or counted.swap_bytes is None:
            told = memory_in_use(_whole(self._meminfo))
            counted = told if counted is None else replace(counted, swap_bytes=told.swap_bytes)
        return replace(counted, limit_bytes=self._memory_bytes)

    def close(self) -> None:
        """Give the descriptors back."""
        self._cgroup.close()
        for fd in (self._stat, self._disks, self._meminfo):
            os.close(fd)


def _time_of(now_ns: int, latest_ns: int, used: Cpu, last: Sample | None, online: int) -> int:
    """When the host's CPU time was read, between the clock's time before and after.

    As early as it can have grown so much by then: a starved host lets a pass wait between clock and counter, and
    no CPU works for more than a second in one.
    """
    if last is None or last.cpu is None or online <= 0 or now_ns < last.time_ns - _TICK_NS:
        return now_ns  # the first, or the clock was set back
    grown = used.usage_seconds - last.cpu.usage_seconds
    return max(now_ns, min(last.time_ns + int(grown / online * 1e9), latest_ns + _TICK_NS))


def _whole(fd: int) -> bytes:
    data = b""
    while chunk := os.pread(fd, 65536, len(data)):
        data += chunk
        if len(chunk) < 2048:
            break
    return data


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0
