"""Group ``cpuLoad``: threads by state, and the load they make, averaged over ten seconds.

States are read from procfs, thread by thread. For the load and for threads that wait for I/O the kernel counts
the threads of a v1 cgroup itself (linux/cgroupstats.h, by the netlink family TASKSTATS); its count of sleeping
ones leaves out most since Linux 6.1, where a sleep that the freezer may interrupt is a state of its own. On v2 it
counts nothing: there the load is procfs', and nobody tells who waits for I/O. Names and labels are cAdvisor's.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from collector.cgroup.files import read_whole
from collector.lanes.board import Reading
from collector.lanes.members import below, directory_of, threads
from collector.netlink_wire import REQUEST, attribute, messages, open_socket, request
from collector.roots import Roots
from collector.target import Target

__all__ = ["TASK_STATES", "CgroupStats", "TaskGroup", "average"]

logger = logging.getLogger(__name__)

#: cAdvisor's states, and which letters of ``/proc/PID/stat`` they are. Whether a thread waits for I/O no letter says.
TASK_STATES: Mapping[str, bytes] = {
    "sleeping": b"S",
    "running": b"R",
    "stopped": b"Tt",
    "uninterruptible": b"D",
}
_IO_WAITING = "iowaiting"

_GENERIC, _CONTROL = 16, 16  # NETLINK_GENERIC, GENL_ID_CTRL
_GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 3, 1, 2
_GET, _FD, _STATS = 4, 1, 1  # CGROUPSTATS_CMD_GET, CGROUPSTATS_CMD_ATTR_FD, CGROUPSTATS_TYPE_CGROUP_STATS
_COMMAND = struct.Struct("=BBH")
_CGROUP = struct.Struct("=HHI")
_COUNTS = struct.Struct("=5Q")  # sleeping, running, stopped, uninterruptible, waiting for I/O
_ANSWER = 20  # header and genlmsghdr
_SECONDS = 10.0
#: States of this many threads are read every time; of more, or where the kernel counts what runs, less often.
_FEW = 32
_STATES_SECONDS = 29.0
_ENDED = frozenset({errno.ENOENT, errno.ESRCH})


def average(last: float, now: float, seconds: float) -> float:
    """An exponentially decaying average over ten seconds, as the kernel's and cAdvisor's loads are."""
    decay = math.exp(-seconds / _SECONDS)
    return last * decay + now * (1 - decay)


class CgroupStats:
    """Asks the kernel how many threads of a v1 cgroup are in which state; those below it are not counted."""

    def __init__(self) -> None:
        """Raises OSError where the kernel was built without (CONFIG_TASKSTATS) or may not be asked."""
        self._socket: socket.socket | None = None
        name = b"TASKSTATS\0"
        answer = self._ask(_CONTROL, _GET_FAMILY, struct.pack("=HH", 4 + len(name), _FAMILY_NAME) + name)
        found = attribute(answer, 0, len(answer), _FAMILY_ID)
        if found is None:
            raise OSError(errno.EPROTO, "TASKSTATS: expected the family's number in the answer")
        self._family = int.from_bytes(found, sys.byteorder)

    def read(self, directory: Path) -> tuple[int, int, int, int, int]:
        """Threads sleeping, running, stopped, uninterruptible, waiting for I/O and in none of these states.

        Raises OSError.
        """
        fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            answer = self._ask(self._family, _GET, _CGROUP.pack(8, _FD, fd))
        finally:
            os.close(fd)
        found = attribute(answer, 0, len(answer), _STATS)
        if found is None or len(found) < _COUNTS.size:
            raise OSError(errno.EPROTO, f"cgroupstats of {directory}: expected five numbers")
        sleeping, running, stopped, uninterruptible, waiting = _COUNTS.unpack_from(found)
        return sleeping, running, stopped, uninterruptible, waiting

    def _ask(self, family: int, command: int, payload: bytes) -> bytes:
        """The attributes of the answer to one request."""
        body = _COMMAND.pack(command, 1, 0) + payload + bytes(-len(payload) % 4)
        asked = self._socket = self._socket or open_socket(_GENERIC)
        try:
            asked.send(request(family, body, REQUEST))
            data = asked.recv(4096)
        except OSError:  # an answer that comes yet would be taken for the next one's
            self.close()
            raise
        for _, start, end in messages(data):
            return data[start + _ANSWER : end]
        raise OSError(errno.EPROTO, "netlink: an empty answer")

    def close(self) -> None:
        """Close the socket; the next question opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __del__(self) -> None:
        self.close()


class TaskGroup:
    """Threads by state and their load. cAdvisor has these with its load reader only, else it says 0."""

    name = "cpuLoad"

    def __init__(
        self, roots: Roots, seconds: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds = seconds
        self._proc = roots.proc
        self._clock = clock
        self._kernel: CgroupStats | None = None
        self._asks = roots.proc == Path("/proc")
        self._loads: dict[str, tuple[float, float, float]] = {}  # when, running, uninterruptible
        self._states: dict[str, tuple[float, dict[str, int]]] = {}

    def read(self, target: Target) -> Sequence[Reading]:
        """Raise OSError, ValueError."""
        key, now = target.container.id, self._clock()
        counted = self._counted(target)
        when, states = self._states.get(key, (-math.inf, {}))
        if now - when >= _STATES_SECONDS or (counted is None and sum(states.values()) <= _FEW):
            states = self._seen(target)
            self._states[key] = now, states
        shown = dict(states)
        if counted is not None:
            shown[_IO_WAITING] = counted[2]
            shown["uninterruptible"] = max(shown["uninterruptible"] - counted[2], 0)
        running, blocked, io = counted or (states["running"], states["uninterruptible"], 0)
        load, load_d = self._load(key, running, blocked + io, now)
        return [
            *(Reading("container_tasks_state", (("state", state),), count) for state, count in shown.items()),
            Reading("container_cpu_load_average_10s", (), int(load * 1000)),
            Reading("container_cpu_load_d_average_10s", (), int(load_d * 1000)),
        ]

    def forget(self, container_id: str) -> None:
        """The container has ended."""
        self._loads.pop(container_id, None)
        self._states.pop(container_id, None)

    def _load(self, key: str, running: int, uninterruptible: int, now: float) -> tuple[float, float]:
        loads = float(running), float(uninterruptible)
        if key in self._loads:
            when, *last = self._loads[key]
            loads = average(last[0], loads[0], now - when), average(last[1], loads[1], now - when)
        self._loads[key] = now, *loads
        return loads

    def _counted(self, target: Target) -> tuple[int, int, int] | None:
        """Threads that run, wait uninterruptibly, or wait for I/O, with those of the cgroups below; None on v2."""
        directory = directory_of(target, "cpu", "cpuacct", "pids", "memory")
        if directory is None or not self._asks:
            return None
        try:
            self._kernel = self._kernel or CgroupStats()
        except OSError as error:
            self._asks = False
            logger.info("the kernel does not count threads by state (%s): reading each one's", error)
            return None
        running = uninterruptible = waiting = 0
        for place in below(directory):
            try:
                _, ready, _, blocked, io = self._kernel.read(place)
            except OSError as error:
                if place == directory or error.errno not in (errno.ENOENT, errno.ENODEV):
                    raise
            else:
                running, uninterruptible, waiting = running + ready, uninterruptible + blocked, waiting + io
        return running, uninterruptible, waiting

    def _seen(self, target: Target) -> dict[str, int]:
        letters = bytearray()
        for tid in threads(target):
            try:
                data = read_whole(f"{self._proc}/{tid}", "stat")
            except OSError as error:
                if error.errno not in _ENDED:
                    raise
                continue
            at = data.rfind(b") ")  # the name before it may hold anything
            letters += data[at + 2 : at + 3]
        return {
            state: sum(letters.count(letter) for letter in wanted) for state, wanted in TASK_STATES.items()
        }
