"""Kills for want of memory, from the kernel's own log, as lines of the container whose process was killed.

Counters say how often (``container_oom_kills_total``), these lines say whom, how large it was and under which
limit. Formats: the kernel's Documentation/ABI/testing/dev-kmsg, mm/oom_kill.c and mm/memcontrol.c.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import orjson

from collector.cgroup.layout import UNIFIED, parse_cgroup
from collector.container import Container
from collector.discovery.registry import Containers
from collector.inputs.intake import Intake, Sources
from logdrivers.block import Block, Encoding, Stream

__all__ = ["KernelLog", "Kill", "Kills", "parse_record"]

logger = logging.getLogger(__name__)

INPUT = "kernel"
_CHECKPOINT = "kernel-log"
_VICTIM = re.compile(
    r"oom-kill:constraint=(?P<constraint>\w+),.*?(?:oom_memcg=(?P<limited>.*?)|global_oom),"
    r"task_memcg=(?P<cgroup>.*),task=(?P<command>.*),pid=(?P<pid>\d+),uid=\d+"
)
_KILLED = re.compile(
    r"(?:(?P<memcg>Memory cgroup )?[Oo]ut of memory[^:]*: )Killed process (?P<pid>\d+) \((?P<command>.*)\).*?"
    r"anon-rss:(?P<anon>\d+)kB, file-rss:(?P<file>\d+)kB, shmem-rss:(?P<shmem>\d+)kB"
)
_USAGE = re.compile(r"memory: usage (?P<usage>\d+)kB, limit (?P<limit>\d+)kB, failcnt \d+")
_RECORD = re.compile(rb"(\d+),(\d+),(\d+),[^;]*;([^\n]*)")
#: Of programs that write to the device, which may write what they like, the kernel never makes this facility.
_KERNELS_OWN = 0
_ID = re.compile(r"[0-9a-f]{64}")
_RECORD_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Kill:
    """One process that was killed."""

    pid: int
    command: str
    rss_bytes: int  #: anonymous, file and shared memory
    in_cgroup: bool  #: a cgroup's limit was hit, and not the end of the host's memory
    cgroup: str = ""  #: the process'; "" where the kernel did not say, since it kills often
    limited: str = ""  #: the cgroup whose limit was hit
    usage_bytes: int | None = None  #: of that cgroup
    limit_bytes: int | None = None


class Kills:
    """Puts the lines of the kernel's log that are about one kill together."""

    def __init__(self) -> None:
        self._usage: tuple[int, int] | None = None
        self._victim: re.Match[str] | None = None

    def take(self, text: str) -> Kill | None:
        """Take the next line; the kill, once all is known of it."""
        if " invoked oom-killer: " in text:
            self._usage = self._victim = None
        elif found := _USAGE.search(text):
            self._usage = int(found["usage"]) * 1024, int(found["limit"]) * 1024
        elif found := _VICTIM.search(text):
            self._victim = found
        elif found := _KILLED.search(text):
            return self._kill(found)
        return None

    def _kill(self, found: re.Match[str]) -> Kill:
        rss = sum(int(found[part]) for part in ("anon", "file", "shmem")) * 1024
        in_cgroup = found["memcg"] is not None
        pid, victim = int(found["pid"]), self._victim
        if victim is None or int(victim["pid"]) != pid:
            return Kill(pid, found["command"], rss, in_cgroup)
        usage, limit = self._usage or (None, None)
        limited = (victim["limited"] or "") if in_cgroup else ""
        return Kill(pid, found["command"], rss, in_cgroup, victim["cgroup"], limited, usage, limit)


def parse_record(data: bytes) -> tuple[int, int, str]:
    """A record of ``/dev/kmsg``: its number, microseconds after the start, the text.

    Raises ValueError on another format.
    """
    found = _RECORD.match(data)
    if found is None:
        raise ValueError(f"kernel log {data[:60]!r}: expected level, number and time before a semicolon")
    return int(found[2]), int(found[3]), found[4].decode(errors="replace")


class KernelLog:
    """Follows the kernel's log and stores a line, a JSON object, for every process it killed for want of memory."""

    def __init__(
        self,
        containers: Containers,
        intake: Intake,
        sources: Sources,
        proc: Path = Path("/proc"),
        device: Path = Path("/dev/kmsg"),
    ) -> None:
        self.kills = 0  #: lines stored
        self.lost_records = 0  #: times the kernel's log had gone on too fast, at least so many records
        self.failures = 0  #: lines that could not be stored, records that are none
        self._containers = containers
        self._intake = intake
        self._sources = sources
        self._device = device
        self._proc = proc
        self._assembly = Kills()
        self._boot = ""
        self._after = -1

    async def run(self) -> None:
        """Follow until cancelled; without a kernel log that may be read there is nothing to follow."""
        try:
            fd = os.open(self._device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            logger.info(
                "kills for want of memory are counted only, the kernel's log cannot be read: %s", error
            )
            await asyncio.Event().wait()
            return
        loop = asyncio.get_running_loop()
        try:
            self._resume(fd)
            loop.add_reader(fd, self._readable, fd, loop)
            await asyncio.Event().wait()
        finally:
            loop.remove_reader(fd)
            os.close(fd)

    def _readable(self, fd: int, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self.read(fd)
        except OSError as error:  # to be called for it again and again would help nobody
            self.failures += 1
            logger.warning("kills are counted only from now on, the kernel's log cannot be read: %s", error)
            loop.remove_reader(fd)

    def read(self, fd: int) -> None:
        """Take all that is there. Raises OSError."""
        for data in self._records(fd):
            try:
                number, microseconds, text = parse_record(data)
            except ValueError as error:
                self.failures += 1
                logger.warning("%s", error)
                continue
            if number <= self._after or int(data.partition(b",")[0]) >> 3 != _KERNELS_OWN:
                continue
            kill = self._assembly.take(text)
            if kill is not None:
                self._store(kill, number, microseconds)

    def _resume(self, fd: int) -> None:
        """Begin behind the last kill of this boot that is stored, else with what comes now."""
        try:
            self._boot = (self._proc / "sys/kernel/random/boot_id").read_text().strip()
        except OSError as error:
            logger.info("cannot tell one boot's kernel log from another's: %s", error)
        boot, _, number = (self._intake.checkpoint(_CHECKPOINT) or b"").decode().partition(" ")
        if self._boot and boot == self._boot and number.isdigit():
            self._after = int(number)
        else:
            os.lseek(fd, 0, os.SEEK_END)

    def _records(self, fd: int) -> Iterator[bytes]:
        while True:
            try:
                data = os.read(fd, _RECORD_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.EPIPE:  # what came next is overwritten already
                    raise
                self.lost_records += 1
                continue
            if not data:
                return
            yield data

    def _store(self, kill: Kill, number: int, microseconds: int) -> None:
        container = self._whose(kill)
        if container is None:
            source = self._sources("", "", "", INPUT)
        else:
            source = self._sources(container.id, container.name, container.image, INPUT)
        boot_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        when = min(boot_ns + microseconds * 1000, time.time_ns())
        block = Block(_line(kill), Encoding.LINES, Stream.STDERR, when, when, 1)
        try:
            self._intake.append(source, block, (_CHECKPOINT, f"{self._boot} {number}".encode()))
        except OSError as error:
            self.failures += 1
            logger.warning("cannot store that process %d (%s) was killed: %s", kill.pid, kill.command, error)
        else:
            self.kills += 1

    def _whose(self, kill: Kill) -> Container | None:
        """The container or service the process was in: that of its cgroup, or of the nearest one above."""
        place = PurePosixPath(kill.cgroup or self._cgroup_of(kill.pid) or "/")
        by_path = {each.cgroup: each for each in (*self._containers.cgroups(), *self._containers.all())}
        for path in (place, *place.parents):
            if str(path) != "/" and str(path) in by_path:
                return by_path[str(path)]
            identity = _ID.search(path.name)  # of one that has ended meanwhile, too
            if identity is not None and (found := self._containers.get(identity[0])) is not None:
                return found
        return None

    def _cgroup_of(self, pid: int) -> str:
        """Of a process that has not ended yet."""
        try:
            paths = parse_cgroup((self._proc / str(pid) / "cgroup").read_bytes())
        except (OSError, ValueError):
            return ""
        path = paths.get("memory") or paths.get(UNIFIED, "")
        return path.encode(errors="surrogateescape").decode(errors="replace")


def _line(kill: Kill) -> bytes:
    what = "its cgroup's limit" if kill.in_cgroup else "the host's memory"
    text = f"process {kill.pid} ({kill.command}) was killed for want of memory: {what} was reached"
    fields: dict[str, object] = {
        "level": "error",
        "message": text,
        "event": "oom_kill",
        "pid": kill.pid,
        "command": kill.command,
        "rss_bytes": kill.rss_bytes,
        "usage_bytes": kill.usage_bytes,
        "limit_bytes": kill.limit_bytes,
        "cgroup": kill.cgroup or None,
        "limited_cgroup": kill.limited or None,
    }
    return orjson.dumps({key: value for key, value in fields.items() if value is not None}) + b"\n"
