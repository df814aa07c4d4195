"""One sampling pass a second over all containers and the host, for everybody who wants numbers.

A pass is synchronous and reads only kept descriptors; opening happens when discovery tells of a start,
the last read when it tells of an end. Parsing is in ``cgroup/`` and ``netns.py``, formulas in ``stats.py``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from collector.bare_targets import BareTargets
from collector.cgroup.layout import Layout
from collector.container import Container
from collector.discovery.registry import RUNNING, Containers
from collector.history import History, Point
from collector.host.cpu import parse_stat
from collector.host.machine import Machine, read_machine
from collector.host_target import HostTarget
from collector.netlink import Counters, LinkCounters
from collector.oom_kills import OomKills
from collector.roots import Roots
from collector.sample import Memory, Sample
from collector.seldom import Seldom
from collector.stats import Stats, stats_of
from collector.target import Target, has_own_network, is_members

__all__ = ["HOST", "Sampler", "read_container"]

logger = logging.getLogger(__name__)

#: After a dump of all interfaces' counters failed, so many passes go by until the next is tried.
_LINKS_PASSES = 60

#: The host's own "container": its root cgroup, all its interfaces and disks. cAdvisor's id for it.
HOST = "/"


def read_container(container: Container, roots: Roots | None = None) -> Sample:
    """One sample of one running container, for a process that samples nothing else (the engine).

    Opens, reads and closes everything. Raises OSError when the container is gone.
    """
    roots = roots or Roots()
    target = Target(container, Layout.read(roots), roots, History(1))
    target.counts_network = not container.network_mode.startswith("container:")
    try:
        sample = target.read(time.time_ns(), parse_stat((roots.proc / "stat").read_bytes()).total_seconds)
        assert sample is not None
        return sample
    finally:
        target.close()


class Sampler:
    """Samples every running container of a registry, and the host under the id ``/``."""

    def __init__(
        self,
        containers: Containers,
        roots: Roots | None = None,
        interval: float = 1.0,
        history_points: int = 600,
        bare_every: int = 10,
        oom_kills: OomKills | None = None,
        per_cpu: bool = False,
    ) -> None:
        """Raises OSError or ValueError where procfs or the cgroups cannot be read at all.

        ``per_cpu``: containers' CPU time by CPU, which v1 alone tells, instead of in one sum.
        """
        self.roots = roots or Roots()
        self.interval = interval
        self.machine: Machine = read_machine(self.roots)
        self.passes = 0  #: sampling passes made
        self.pass_seconds = 0.0  #: CPU time they took
        self.failures: dict[str, int] = {}  #: failed reads by controller
        self._unopened = Seldom()  # messages of containers that were gone before they could be opened
        self._oom_kills = oom_kills or OomKills()
        self._per_cpu = per_cpu
        self._layout = Layout.read(self.roots)
        self._history_points = history_points
        self._targets: dict[str, Target] = {}
        self._ended: dict[str, Target] = {}
        self._former: dict[str, Target] = {}  # the run before the one that goes on, closed
        self._host = HostTarget(
            self._layout, self.roots, History(history_points), self.machine.memory.total_bytes
        )
        self._links: LinkCounters | None = None
        self._links_from = 0  # not before this pass: dumping them failed not long ago
        self._pass = threading.Lock()
        self._opening = threading.RLock()
        self._online = self.machine.topology.cores
        self._newest_ns = 0
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched: dict[int, str] = {}
        self._containers = containers
        self._bare = BareTargets(self._layout, self.roots, bare_every)
        self._unsubscribe = containers.subscribe(self._changed, cgroups=True)
        for container in (*containers.all(), *containers.cgroups()):
            self._changed("added", container)

    # --- reading -------------------------------------------------------------------------------------

    def sample_all(self, now_ns: int | None = None) -> None:
        """Make one pass: the host, then every running container. Never raises for a single failure."""
        with self._pass:
            if self._closed:
                return
            begun = time.monotonic_ns()
            now_ns = time.time_ns() if now_ns is None else now_ns
            started = time.thread_time()
            cpu = self._host.read(now_ns, begun)
            links = self._read_links()
            self._online = cpu.online or self._online
            self._note_failures(HOST, self._host.latest)
            for container_id, target in tuple(self._targets.items()):
                self._note_failures(container_id, target.read(now_ns, cpu.total_seconds, links))
                if target.gone:
                    self._end(container_id)
            for path, sample in self._bare.read(now_ns, cpu.total_seconds):
                self._note_failures(path, sample)
            self._newest_ns = now_ns
            self.passes += 1
            self.pass_seconds += time.thread_time() - started
        self._forget()

    def sample_if_older(self, seconds: float = 1.0) -> None:
        """Make a pass unless the newest one is at most this old: what a scrape does."""
        if abs(time.time_ns() - self._newest_ns) > seconds * 1e9:  # from the future: the clock was set back
            self.sample_all()

    def latest(self, container_id: str) -> Sample | None:
        """The newest sample of a container, of one that ended not long ago, or of the host (``/``).

        Of one that ended before we started nothing is known but its out-of-memory kills.
        """
        target = self._target(container_id)
        if target is not None:
            return target.latest
        kills = self._oom_kills.total(container_id)
        return Sample(0, memory=Memory(0, 0, oom_kills=kills)) if kills else None

    def of_run(self, container: Container) -> Sample | None:
        """The last sample of the run that ``container`` shows, which may be over with the next one going on."""
        target = self._targets.get(container.id) or self._ended.get(container.id)
        if target is not None and _ended_before(container, target.container):
            former = self._former.get(container.id)
            return former.latest if former and former.container.started_ns == container.started_ns else None
        if (
            target is not None
            and target.latest is not None
            and target.container.started_ns != container.started_ns
            and target.latest.time_ns < container.started_ns
        ):
            return None  # that was the run before
        return self.latest(container.id)

    def previous(self, container_id: str) -> Sample | None:
        """The sample before ``latest``."""
        target = self._target(container_id)
        return target.previous if target else None

    def history(self, container_id: str) -> Sequence[Point]:
        """The last minutes, oldest first; empty for an unknown container."""
        target = self._target(container_id)
        return target.history if target else ()

    def targets(self) -> dict[str, Target]:
        """The running containers as they are opened, by id: what slower readers go through."""
        return dict(self._targets)

    def cgroup_targets(self) -> dict[str, Target]:
        """The same of bare cgroups, by path; they have no network namespace."""
        return self._bare.all()

    def rings(self) -> list[tuple[str, Container | None, History, int]]:
        """The host's ring and every container's, of ended ones too: id, container, ring, memory limit (0: none)."""
        found: list[tuple[str, Container | None, History, int]] = [(HOST, None, self._host.history, 0)]
        for container_id, target in (*tuple(self._ended.items()), *tuple(self._targets.items())):
            memory = target.latest.memory if target.latest else None
            found.append(
                (container_id, target.container, target.history, (memory and memory.limit_bytes) or 0)
            )
        return found

    def stats(self, container_id: str) -> Stats:
        """``docker stats``' row; all zero where the container does not run or was not sampled yet."""
        target = self._target(container_id) if container_id not in self._ended else None
        if target is None or target.latest is None:
            return Stats()
        memory = self.machine.memory.total_bytes
        return stats_of(target.latest, target.previous, self._online, memory)

    async def run(self) -> None:
        """Make a pass every interval until cancelled, on the tick, in a thread of its own."""
        self._loop = asyncio.get_running_loop()
        for target in tuple(self._targets.values()):
            self._watch(target)
        try:
            tick = self._loop.time()
            while True:
                try:
                    await asyncio.to_thread(self.sample_all)
                except (OSError, ValueError):
                    self.failures["host"] = self.failures.get("host", 0) + 1
                    logger.exception("a sampling pass failed")
                tick = max(tick + self.interval, self._loop.time())
                await asyncio.sleep(tick - self._loop.time())
        finally:
            for fd in tuple(self._watched):
                self._unwatch(fd)
            self._loop = None

    def close(self) -> None:
        """Stop following the registry and give all descriptors back; what was read can still be asked for.

        Waits for a pass that is under way. Closing twice does nothing.
        """
        self._unsubscribe()
        with self._pass, self._opening:
            if self._closed:
                return
            self._closed = True
            for fd in tuple(self._watched):
                self._unwatch(fd)
            for container_id, target in self._targets.items():
                target.close()
                self._ended[container_id] = target
            self._targets.clear()
            self._bare.close()
            self._host.close()
            if self._links is not None:
                self._links.close()

    def _read_links(self) -> dict[int, Counters] | None:
        """Counters of all the host's interfaces at once, where that helps a container; else None."""
        if self.roots.proc != Path("/proc") or self.passes < self._links_from:
            return None
        if not any(target.counts_network for target in self._targets.values()):
            return None
        try:
            self._links = self._links or LinkCounters()
            return self._links.read()
        except OSError as error:
            logger.warning("cannot dump interface counters, will read every container's own: %s", error)
            if self._links is not None:
                self._links.close()
            self._links, self._links_from = None, self.passes + _LINKS_PASSES
            return None

    # --- starts and ends -----------------------------------------------------------------------------

    def _changed(self, event: str, container: Container) -> None:
        if container.bare:
            self._bare.change(event, container)
            return
        with self._opening:
            target = self._targets.get(container.id)
            if (
                target is not None
                and event != "removed"
                and container.state not in RUNNING
                and _ended_before(container, target.container)
            ):
                self._former_ended(container, target)
            elif event == "removed" or container.state not in RUNNING:
                if container.id not in self._targets and container.oom_killed:
                    self._ended_killed(container)
                self._end(container.id, container.oom_killed)
            elif target is None or target.pid != container.pid:
                self._end(container.id)
                self._start(container)
            else:
                target.changed(container)

    def _former_ended(self, container: Container, target: Target) -> None:
        """The end of a run is heard of while the next one goes on."""
        former = self._former.get(container.id)
        counted = former and former.container.started_ns == container.started_ns and former.killed
        if container.oom_killed and not counted:
            target.earlier_run_killed()

    def _start(self, container: Container) -> None:
        ended = self._ended.pop(container.id, None)
        history = ended.history if ended else History(self._history_points)
        if ended and not (container.pid and container.pid == ended.container.pid):
            history.started_anew()  # else it was let go and is found again, with what it had used
            self._former[container.id] = ended
        try:
            target = Target(
                container, self._layout, self.roots, history, self._oom_kills, per_cpu=self._per_cpu
            )
        except OSError as error:
            self.failures["open"] = self.failures.get("open", 0) + 1
            kept_back = self._unopened.turn()
            if kept_back is not None:  # containers of some milliseconds may come by the thousand
                logger.warning(
                    "cannot sample container %s (pid %d): %s%s",
                    container.name,
                    container.pid,
                    error,
                    f"; so it was with {kept_back} more since the last such message" if kept_back else "",
                )
            return
        self._targets[container.id] = target
        self._assign_networks()
        target.read(time.time_ns(), self._host.cpu().total_seconds)
        self._watch(target)

    def _ended_killed(self, container: Container) -> None:
        """A run that was over before it could be opened, or whose end was heard of before why it ended."""
        total = self._oom_kills.ended_killed(container)
        ended = self._ended.get(container.id)
        if ended is not None and total:
            ended.ended_with_kills(total)

    def _end(self, container_id: str, oom_killed: bool = False) -> None:
        with self._opening:
            target = self._targets.pop(container_id, None)
            if target is None:
                return
            if not target.gone:
                target.read(time.time_ns(), None)
            if oom_killed or target.container.oom_killed:
                target.was_oom_killed()
            target.close()
            self._ended[container_id] = target
            self._assign_networks()

    def _forget(self) -> None:
        """Drop ended targets whose tombstone is over and whose container is not known any more."""
        if ended := {*self._ended, *self._former}:  # the next run of a former one may never have been opened
            # In this order: one that is removed meanwhile leaves the list for the tombstones.
            ended.difference_update([container.id for container in self._containers.all()])
            ended.difference_update([stone.container.id for stone in self._containers.tombstones()])
            for container_id in ended:
                self._ended.pop(container_id, None)
                self._former.pop(container_id, None)
            self._oom_kills.forget(ended)

    def _assign_networks(self) -> None:
        """Let one member of every network namespace count it, the one that did not join another's."""
        hosts = self._host.namespace_inodes
        owners: dict[int, Target] = {}
        for target in self._targets.values():
            target.counts_network = False
            if target.namespace is None or not has_own_network(target.container):
                continue
            inode = target.namespace.inode
            if inode in hosts:
                continue
            owner = owners.get(inode)
            if owner is None or _joined(owner.container) > _joined(target.container):
                owners[inode] = target
        for target in owners.values():
            target.counts_network = True

    # --- the moment of death -------------------------------------------------------------------------

    def _watch(self, target: Target) -> None:
        """Have the event loop read the container once more when its process ends, before rmdir."""
        loop = self._loop
        if loop is None or target.pid <= 0 or self.roots.proc != Path("/proc"):
            return
        try:
            fd = os.pidfd_open(target.pid)
        except OSError:
            return  # it has ended, discovery will tell
        try:
            own = is_members((self.roots.proc / str(target.pid) / "cgroup").read_bytes(), target.container)
        except (OSError, ValueError):
            own = False
        if not own:  # it has ended, and the number may be another's
            os.close(fd)
            return
        self._watched[fd] = target.container.id
        loop.call_soon_threadsafe(self._arm, loop, fd, target)

    def _arm(self, loop: asyncio.AbstractEventLoop, fd: int, target: Target) -> None:
        if fd in self._watched:  # else the end of all was faster
            loop.add_reader(fd, self._process_ended, fd, target)

    def _process_ended(self, fd: int, target: Target) -> None:
        target.read(time.time_ns(), None)
        self._unwatch(fd)

    def _unwatch(self, fd: int) -> None:
        if self._watched.pop(fd, None) is not None:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(fd)
            os.close(fd)

    def _target(self, container_id: str) -> Target | HostTarget | None:
        if container_id == HOST:
            return self._host
        found = self._targets.get(container_id) or self._ended.get(container_id)
        return found or self._bare.get(container_id)

    def _note_failures(self, container_id: str, sample: Sample | None) -> None:
        if sample is None or not sample.errors:
            return
        for error in sample.errors:
            controller = error.partition(":")[0]
            seen = self.failures.get(controller, 0)
            self.failures[controller] = seen + 1
            level = logging.WARNING if seen == 0 else logging.DEBUG
            logger.log(level, "cannot sample %s of %s", error, container_id)


def _ended_before(container: Container, running: Container) -> bool:
    """Whether a run that has ended is another than the one that goes on, which began later."""
    if container.started_ns == running.started_ns:
        return False  # it only seems so: the clock was set back in between
    return 0 < container.finished_ns < running.started_ns


def _joined(container: Container) -> bool:
    return container.network_mode.startswith("container:")
