"""One container under the sampler's eye: its cgroup, its network namespace, its last samples.

Opened when the container starts and closed when it is gone; what it read last outlives the descriptors.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import replace

from collector.cgroup.layout import Layout, parse_cgroup
from collector.cgroup.reader import CgroupReader
from collector.container import Container
from collector.history import History
from collector.netlink import Counters
from collector.netns import Namespace
from collector.oom_kills import OomKills
from collector.roots import Roots
from collector.sample import Interface, Memory, Sample

__all__ = ["Target", "cgroup_paths", "has_own_network", "is_members", "open_cgroup"]

logger = logging.getLogger(__name__)


def has_own_network(container: Container) -> bool:
    """Whether interfaces seen from inside are the container's to count (not the host's, not nobody's)."""
    return container.network_mode not in ("host", "none") and container.pid > 0


def open_cgroup(layout: Layout, container: Container, roots: Roots, *, per_cpu: bool = False) -> CgroupReader:
    """Open a container's cgroup: by its process where it has one, else by the path discovery found.

    Raises OSError when neither is there.
    """
    return CgroupReader(layout, cgroup_paths(layout, container), per_cpu)


def cgroup_paths(layout: Layout, container: Container) -> Mapping[str, str]:
    """The container's cgroup by hierarchy. Raises OSError when its process is gone and no path is known."""
    if container.pid <= 0:
        return layout.everywhere(container.cgroup)
    try:
        paths = layout.process_paths(container.pid, container.id)
    except OSError:
        if not container.cgroup:
            raise
        paths = {}
    if container.cgroup:  # only what belongs to the path that is known to be the container's
        own = (container.cgroup, container.cgroup + "/")
        paths = {key: own[0] for key, path in paths.items() if path == own[0] or path.startswith(own[1])}
    return paths or layout.everywhere(container.cgroup)


def is_members(data: bytes, container: Container) -> bool:
    """Whether a process with this ``/proc/PID/cgroup`` is the container's, and not another with its number.

    By the name of its cgroup, for the way to it looks different from inside a cgroup namespace. True as well
    where no cgroup is known that could be compared with. Raises ValueError.
    """
    own = container.cgroup.rpartition("/")[2]
    return not own or any(own in path.split("/") for path in parse_cgroup(data).values())


class Target:
    """Everything the sampler keeps of one container."""

    def __init__(
        self,
        container: Container,
        layout: Layout,
        roots: Roots,
        history: History,
        oom_kills: OomKills | None = None,
        per_cpu: bool = False,
    ) -> None:
        """Open it. Raises OSError when it is gone already. ``per_cpu``: CPU time by CPU, where v1 tells."""
        self.container = container
        self.pid = container.pid
        self.counts_network = False  #: the sampler decides which member of a shared namespace counts
        self.latest: Sample | None = None
        self.previous: Sample | None = None
        self.history = history
        self.lock = threading.Lock()
        self.closed = False
        self.namespace: Namespace | None = None
        self.cgroup = open_cgroup(layout, container, roots, per_cpu=per_cpu)
        if has_own_network(container):
            try:
                self.namespace = self._open_namespace(roots)
            except (OSError, ValueError) as error:
                logger.info("no network counters for container %s: %s", container.name, error)
        self._oom_kills = oom_kills or OomKills()
        self._earlier_kills = self._oom_kills.begin(container)
        self._kills = -1  # the kernel's count that was noted last

    def _open_namespace(self, roots: Roots) -> Namespace:
        """Raises OSError when the process is gone or another has its number, ValueError on odd files."""
        namespace = Namespace(roots.proc, self.pid)
        try:
            fd = namespace.open("cgroup")
            try:
                if is_members(os.read(fd, 65536), self.container):
                    return namespace
            finally:
                os.close(fd)
            raise ProcessLookupError(errno.ESRCH, f"process {self.pid} is another one by now")
        except BaseException:
            namespace.close()
            raise

    @property
    def gone(self) -> bool:
        """Its cgroup was found removed."""
        return self.cgroup.gone

    def read(
        self,
        now_ns: int,
        host_cpu_seconds: float | None,
        host_links: Mapping[int, Counters] | None = None,
    ) -> Sample | None:
        """Take a sample and remember it; None, and nothing changed, once it is closed."""
        with self.lock:
            if self.closed:
                return None
            last = self.latest
            interfaces: tuple[Interface, ...] = ()
            errors: tuple[str, ...] = ()
            if self.counts_network and self.namespace is not None:
                try:
                    interfaces = self.namespace.read(host_links)
                except OSError:  # its process has ended: what the interfaces had carried stays
                    interfaces = last.interfaces if last else ()
                except ValueError as error:
                    errors = (f"network: {error}",)
            sample = self.cgroup.read(now_ns, last, interfaces, host_cpu_seconds, errors)
            memory = sample.memory
            if memory is not None and (self._earlier_kills or memory.oom_kills != self._kills):
                sample = self._with_kills(sample, memory, last)
            self.previous, self.latest = last, sample
            self.history.append(sample)
            return sample

    def changed(self, container: Container) -> None:
        """Its engine tells other facts of the same run: limits and networks may be others, too."""
        self.container = container
        self.cgroup.refresh_limits()
        with self.lock:
            if self.namespace is not None:
                self.namespace.look_again()

    def open_proc(self, name: str) -> int:
        """Open a file of the first process's directory in procfs, like ``net/snmp``; the caller closes it.

        Raises OSError: ESRCH where the container is closed or has no namespace of its own.
        """
        with self.lock:  # closing gives the directory's number to somebody else
            if self.closed or self.namespace is None:
                raise ProcessLookupError(errno.ESRCH, "no such process", name)
            return self.namespace.open(name)

    def was_oom_killed(self) -> None:
        """The engine says so: count it where the kernel's count could not be read any more."""
        with self.lock:
            memory = (self.latest and self.latest.memory) or Memory(0, 0)
            if (memory.oom_kills or 0) <= self._earlier_kills:
                total = self._earlier_kills + 1
                self._oom_kills.note(self.container, total)
                if self.latest is not None:
                    self.latest = replace(self.latest, memory=replace(memory, oom_kills=total))

    @property
    def killed(self) -> bool:
        """Whether a kill in this run has been counted."""
        memory = self.latest.memory if self.latest else None
        return memory is not None and (memory.oom_kills or 0) > self._earlier_kills

    def earlier_run_killed(self) -> None:
        """Count a kill in a run before this one, of which the end is heard only now."""
        with self.lock:
            self._oom_kills.earlier_killed(self.container)
            self._earlier_kills += 1
            memory = self.latest.memory if self.latest else None
            if self.latest is not None and memory is not None:
                kills = (memory.oom_kills or 0) + 1
                self.latest = replace(self.latest, memory=replace(memory, oom_kills=kills))

    def ended_with_kills(self, total: int) -> None:
        """It has ended, and ``total`` were killed in all of its runs: more than could be read."""
        with self.lock:
            if self.latest is not None and self.latest.memory is not None:
                self.latest = replace(self.latest, memory=replace(self.latest.memory, oom_kills=total))

    def _with_kills(self, sample: Sample, memory: Memory, last: Sample | None) -> Sample:
        """The sample with the kills of all runs instead of those in this cgroup."""
        if memory.oom_kills is None or (last is not None and memory is last.memory):
            return sample  # its cgroup is gone: these are the last values, with earlier runs in
        self._kills = memory.oom_kills
        total = self._earlier_kills + memory.oom_kills
        self._oom_kills.note(self.container, total)
        return replace(sample, memory=replace(memory, oom_kills=total)) if self._earlier_kills else sample

    def close(self) -> None:
        """Give the descriptors back; ``latest``, ``previous`` and ``history`` stay."""
        with self.lock:
            if not self.closed:
                self.closed = True
                self.cgroup.close()
                if self.namespace is not None:
                    self.namespace.close()
