"""Group ``perf``: hardware and scheduling events of a container's processes, by perf_event_open(2).

Counters count in the kernel while processes of the cgroup run; here they are opened, read and closed. Hardware
events are absent where the processor does not show any, as in most virtual machines. Names and labels are
cAdvisor's, summed over CPUs; what is counted it takes from a file, here it is a fixed set.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import platform
import struct
from collections.abc import Sequence
from pathlib import Path

from collector.cgroup.layout import UNIFIED
from collector.host.hardware import parse_cpu_list
from collector.lanes.board import Reading
from collector.lanes.members import directory_of
from collector.roots import Roots
from collector.target import Target

__all__ = ["EVENTS", "MAX_DESCRIPTORS", "PerfGroup"]

logger = logging.getLogger(__name__)

_HARDWARE, _SOFTWARE = 0, 1
#: Type and number of each event (linux/perf_event.h), by perf's name.
EVENTS = {
    "cycles": (_HARDWARE, 0),
    "instructions": (_HARDWARE, 1),
    "cache-references": (_HARDWARE, 2),
    "cache-misses": (_HARDWARE, 3),
    "branches": (_HARDWARE, 4),
    "branch-misses": (_HARDWARE, 5),
    "context-switches": (_SOFTWARE, 3),
    "cpu-migrations": (_SOFTWARE, 4),
}

#: A descriptor for each event, CPU and container; of containers beyond this nothing is counted.
MAX_DESCRIPTORS = 4096

_CALL = {"x86_64": 298, "aarch64": 241}  # perf_event_open
_BY_CGROUP, _CLOSE_ON_EXEC = 4, 8
_ATTRIBUTE = struct.Struct("=IIQQQQQ16x")  # perf_event_attr's first version: type, size, config, …, flags
_TIMES = 3  # PERF_FORMAT_TOTAL_TIME_ENABLED and _RUNNING
_COUNT = struct.Struct("=QQQ")
_ABSENT = frozenset({errno.ENOENT, errno.EOPNOTSUPP, errno.ENODEV, errno.EINVAL})


def _open(event: tuple[int, int], cgroup: int, cpu: int) -> int:
    """A counter of one event on one CPU. Raises OSError; ENOSYS on a machine whose call is not known here."""
    number = _CALL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"perf_event_open is not known on {platform.machine()}")
    kind, config = event
    attribute = _ATTRIBUTE.pack(kind, _ATTRIBUTE.size, config, 0, 0, _TIMES, 0)
    opened: int = ctypes.CDLL(None, use_errno=True).syscall(
        number, attribute, cgroup, cpu, -1, _BY_CGROUP | _CLOSE_ON_EXEC
    )
    if opened < 0:
        failed = ctypes.get_errno()
        raise OSError(failed, f"perf_event_open: {os.strerror(failed)}")
    return opened


class PerfGroup:
    """Counts of events, scaled up where the processor had to share its counters out."""

    name = "perf"

    def __init__(self, roots: Roots, seconds: float = 60.0) -> None:
        self.seconds = seconds
        self.cut = 0  #: readings of containers there were no descriptors left for
        self._roots = roots
        self._absent: set[str] = set()  # events this machine does not have
        self._kept: dict[str, dict[str, list[int]]] = {}
        self._descriptors = 0
        self._least = 1  # descriptors that a container takes, once that is known

    def read(self, target: Target) -> Sequence[Reading]:
        """Raise OSError; nothing where the cgroup is in no hierarchy with the controller."""
        key = target.container.id
        if key not in self._kept:
            directory = directory_of(target, "perf_event", UNIFIED)
            if directory is None:
                return ()
            opened = self._open_all(directory) if self._descriptors + self._least <= MAX_DESCRIPTORS else None
            if opened is None:
                self.cut += 1
                return ()
            self._kept[key] = opened
        readings = []
        for event, descriptors in self._kept[key].items():
            value = enabled = running = 0
            for fd in descriptors:
                counted, on, active = _COUNT.unpack(os.read(fd, _COUNT.size))
                value, enabled, running = value + counted, enabled + on, running + active
            ratio = running / enabled if enabled else 1.0
            labels = (("event", event),)
            readings.append(Reading("container_perf_events_total", labels, value / ratio if ratio else 0))
            readings.append(Reading("container_perf_events_scaling_ratio", labels, ratio))
        return readings

    def forget(self, container_id: str) -> None:
        """The container has ended."""
        self._close(self._kept.pop(container_id, {}))

    def _open_all(self, directory: Path) -> dict[str, list[int]] | None:
        """None, and nothing open, where that takes more descriptors than are left."""
        cpus = parse_cpu_list((self._roots.sys / "devices/system/cpu/online").read_text().strip())
        opened: dict[str, list[int]] = {}
        cgroup = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for event in [event for event in EVENTS if event not in self._absent]:
                for cpu in cpus:
                    if self._descriptors >= MAX_DESCRIPTORS:
                        self._close(opened)
                        return None
                    try:
                        fd = _open(EVENTS[event], cgroup, cpu)
                    except OSError as error:
                        if error.errno not in _ABSENT or not directory.exists():  # not the event's fault
                            raise
                        self._absent.add(event)
                        logger.info("no event %s here: %s", event, error)
                        break
                    opened.setdefault(event, []).append(fd)
                    self._descriptors += 1
        except OSError:
            self._close(opened)
            raise
        finally:
            os.close(cgroup)
        self._least = sum(map(len, opened.values())) or 1
        return opened

    def _close(self, opened: dict[str, list[int]]) -> None:
        for descriptors in opened.values():
            for fd in descriptors:
                os.close(fd)
                self._descriptors -= 1
