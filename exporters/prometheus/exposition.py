"""The page a Prometheus server scrapes: text format 0.0.4, written for many containers at little cost.

The page is a plan (``plan.py``) filled with the values of each container; a part of the plan is made anew when a
series comes or goes. Values carry no timestamps, so a series that is gone is stale at once. Serving is
``http.py``'s.
"""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Collection, Iterable

from collector.container import Container
from collector.discovery.registry import RUNNING, Containers, Tombstone
from collector.host.disks import names as disk_names
from collector.host.filesystems import FileSystem, read_filesystems
from collector.host.hardware import Hardware, read_hardware
from collector.lanes.board import Board
from collector.sample import Sample
from collector.sampler import HOST, Sampler
from exporters.prometheus.host_series import (
    disk_series,
    filesystem_series,
    hardware_series,
    machine_series,
    scrape_series,
)
from exporters.prometheus.labels import LabelRules
from exporters.prometheus.plan import Plan, Sink
from exporters.prometheus.series import Entry, Number, Row

__all__ = ["CONTENT_TYPE", "Exposition"]

logger = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_FILESYSTEMS_NS = 60_000_000_000
#: So many containers that are left off the page are named in the log.
_NAMED = 10
_HARDWARE_NS = 300_000_000_000


class Exposition:
    """Renders the series of a registry's containers and of the host from a sampler's newest pass."""

    def __init__(
        self,
        containers: Containers,
        sampler: Sampler,
        rules: LabelRules | None = None,
        max_series: int = 500_000,
        version: str = "",
        board: Board | None = None,
    ) -> None:
        self.series = 0  #: series on the last whole page
        self.all_cgroups = False  #: whether bare cgroups are on the page
        self.topology = (
            False  #: whether caches, threads and NUMA nodes are on the page, as cAdvisor's cpu_topology
        )
        self.dropped_series = 0  #: series left off, over ``max_series``, since the start
        self._containers = containers
        self._sampler = sampler
        self._rules = rules or LabelRules()
        self._max_series = max_series
        self._version = version
        self._board = board or Board()
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._plan = Plan()
        self._changed: dict[str, None] = {}  # entries whose rows are others than in the plan
        self._left_out: dict[str, None] = {}
        self._dropped = 0  # series of those
        self._disks: dict[str, str] = {}
        self._filesystems: tuple[FileSystem, ...] = ()
        self._filesystems_ns = 0
        self._hardware: list[tuple[Row, Number]] = []
        self._hardware_ns = 0
        self._machine_error = False
        self._host = Container(id=HOST, name="", cgroup=HOST, started_ns=sampler.machine.boot_ns)

    def render(
        self, now_ns: int | None = None, names: Collection[str] = (), ids: Collection[str] = ()
    ) -> bytes:
        """The page that ``write`` writes."""
        page = io.BytesIO()
        self.write(page.write, now_ns, names, ids)
        return page.getvalue()

    def write(
        self,
        sink: Sink,
        now_ns: int | None = None,
        names: Collection[str] = (),
        ids: Collection[str] = (),
    ) -> None:
        """Give the page to ``sink`` piece by piece, of the families ``names`` and the containers ``ids`` only
        where these have any.

        An id is what ``Containers.get`` knows a container by, a cgroup's path, or ``/`` for the host's own
        cgroup. Takes no new sample.
        """
        now_ns = time.time_ns() if now_ns is None else now_ns
        with self._lock:
            error = self._update(now_ns)
            host, values = self._without_container(now_ns, error)
            if ids:
                found = ((word, self._containers.get(word)) for word in ids)
                keys = {container.id if container else word for word, container in found}
                self._part([key for key in self._entries if key in keys], names).fill([], (), sink)
            elif names:
                self._leave_out(len(host))
                on_page = [key for key in self._entries if key not in self._left_out]
                self._part(on_page, names).fill(host, values, sink)
            else:
                self._leave_out(len(host))
                for key in self._changed:
                    if key in self._entries and key not in self._left_out:
                        self._plan.put(key, self._entries[key])
                    else:
                        self._plan.remove(key)
                self._changed.clear()
                self._plan.fill(host, values, sink)
                self.series = self._plan.series
                self.dropped_series += self._dropped

    def _part(self, keys: Iterable[str], names: Collection[str]) -> Plan:
        """A plan of some containers and families, for one page."""
        plan = Plan(names)
        for key in keys:
            plan.put(key, self._entries[key])
        return plan

    def _leave_out(self, host: int) -> None:
        """Decide which containers are over the limit, those that came last first, and say so when they are others."""
        count, self._dropped = host, 0
        left_out: dict[str, None] = {}
        for key, entry in self._entries.items():
            if count + len(entry.rows) > self._max_series:
                left_out[key] = None
                self._dropped += len(entry.rows)
            else:
                count += len(entry.rows)
        if left_out.keys() == self._left_out.keys():
            return
        self._changed |= dict.fromkeys(left_out.keys() ^ self._left_out.keys())
        self._left_out = left_out
        if left_out:
            found = (self._containers.get(key) for key in list(left_out)[:_NAMED])
            names = [known.name or known.id for known in found if known]
            logger.warning(
                "%d series are more than the limit of %d: %d containers are left off /metrics: %s%s",
                self._dropped,
                self._max_series,
                len(left_out),
                ", ".join(names),
                ", …" if len(left_out) > len(names) else "",
            )

    @property
    def left_out(self) -> int:
        """How many containers are left off the page, over ``max_series``."""
        return len(self._left_out)

    def _update(self, now_ns: int) -> bool:
        """Bring every entry up to date: whether a counter failed."""
        stones = {stone.container.id: stone for stone in self._containers.tombstones()}
        containers = {container.id: container for container in self._containers.all()}
        for container_id, stone in stones.items():
            containers.setdefault(container_id, stone.container)
        if self.all_cgroups:
            containers |= {cgroup.id: cgroup for cgroup in self._containers.cgroups()}
        error = False
        for container_id in [key for key in self._entries if key != HOST and key not in containers]:
            del self._entries[container_id]
            self._changed[container_id] = None
        now = now_ns // 1_000_000_000
        host = self._sampler.latest(HOST)
        self._one(HOST, self._host, host, now, True)
        error |= bool(host and host.errors)
        for container_id, container in containers.items():
            sample = self._sampler.latest(container_id)
            running = container.state in RUNNING
            last_seen = now if running else _last_seen(stones.get(container_id))
            self._one(container_id, container, sample, last_seen, running)
            error |= bool(running and sample and sample.errors)
        return error

    def _one(
        self, key: str, container: Container, sample: Sample | None, last_seen: int | None, running: bool
    ) -> None:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = Entry()
            self._changed[key] = None
        base = self._rules.of if key != HOST else _host_labels
        slow = self._board.of(key)
        memory = self._sampler.machine.memory.total_bytes
        if entry.update(container, base, sample, last_seen, running, self._device_name, slow, memory):
            self._changed[key] = None

    def _without_container(self, now_ns: int, error: bool) -> tuple[list[Row], list[Number]]:
        if abs(now_ns - self._filesystems_ns) > _FILESYSTEMS_NS:  # from the future: the clock was set back
            self._filesystems_ns = now_ns
            self._read_filesystems()
        if abs(now_ns - self._hardware_ns) > _HARDWARE_NS:
            self._hardware_ns = now_ns
            self._read_hardware()
        machine = self._sampler.machine
        host = self._sampler.latest(HOST)
        pairs = [
            *(disk_series(host) if host else ()),
            *filesystem_series(self._filesystems),
            *scrape_series(machine, error, self._machine_error, self._version),
            *machine_series(machine),
            *self._hardware,
        ]
        return [row for row, _ in pairs], [value for _, value in pairs]

    def _read_filesystems(self) -> None:
        try:
            self._filesystems = read_filesystems(self._sampler.roots)
            self._machine_error = False
        except OSError as error:
            self._machine_error = True
            logger.warning("cannot read the mounted file systems: %s", error)

    def _read_hardware(self) -> None:
        try:
            hardware = read_hardware(self._sampler.roots, topology=self.topology)
        except (OSError, ValueError) as error:
            hardware = Hardware()
            logger.warning("cannot read what the machine is built of: %s", error)
        self._hardware = list(hardware_series(self._sampler.machine, hardware))

    def _device_name(self, number: str) -> str:
        if number not in self._disks:
            try:
                self._disks = disk_names((self._sampler.roots.proc / "diskstats").read_bytes())
            except OSError as error:
                logger.warning("cannot read the names of block devices: %s", error)
            self._disks.setdefault(number, number)
        return self._disks[number]


def _last_seen(stone: Tombstone | None) -> int | None:
    return stone.ended_ns // 1_000_000_000 if stone else None


def _host_labels(_container: Container) -> str:
    return 'id="/"'
