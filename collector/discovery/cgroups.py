"""Finds containers, pods, services and bare cgroups by the cgroup tree itself, engine or no engine.

The kernel tells of new and removed cgroups (``tree.py``) and of the ends of processes (pidfds); ``facts.py``
says what they are. Where an engine's API tells of a container, that is believed, and only its end is told
from here while the engine is away. Nothing is done while nothing happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from collector.cgroup.layout import UNIFIED, Layout
from collector.container import Container
from collector.discovery.endings import Endings
from collector.discovery.facts import Facts, Found
from collector.discovery.keeper import read_process
from collector.discovery.registry import RUNNING, Containers
from collector.discovery.scopes import Kind, Scope, scope_of
from collector.discovery.tree import CgroupTree, Happening, What
from collector.roots import Roots

__all__ = ["CgroupDiscovery"]

logger = logging.getLogger(__name__)

#: Runtimes put several processes into a new cgroup one after the other, the last of which stays.
_SETTLE_SECONDS = 0.02
#: How long an engine whose events are followed has to tell of its container before it is taken from here,
#: and how long a bare cgroup has to live.
_PATIENCE_SECONDS = 1.0
#: The tree is compared with what is known this often, for cgroups that are not watched inside.
_RESCAN_SECONDS = 60.0
#: The same where the host allows no watches at all.
_UNTOLD_SECONDS = 2.0
#: Hierarchies in which engines and systemd make a directory for everything, the best one first.
_HIERARCHIES = ("memory", "pids", "cpu", "cpuacct", "name=systemd", UNIFIED)


@dataclass(slots=True)
class _Member:
    """A cgroup that is followed."""

    scope: Scope
    made_at: float  #: on the loop's clock
    found: Found | None = None
    pid: int = 0
    pidfd: int = -1
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)
    ended: bool = False
    left: bool = False  #: its engine has been given the time to tell of it


class CgroupDiscovery:
    """Keeps the registry in step with the cgroup tree."""

    def __init__(
        self,
        containers: Containers,
        roots: Roots | None = None,
        followed: Callable[[str], bool] = lambda engine: False,
        *,
        below: str = "",
        patience_seconds: float = _PATIENCE_SECONDS,
        rescan_seconds: float = _RESCAN_SECONDS,
        max_watches: int = 8192,
    ) -> None:
        """``followed`` says whether the events of an engine by this name are being heard.

        ``below``: only what is in this cgroup. Raises OSError or ValueError where there are no cgroups.
        """
        self.failures: dict[str, int] = {}  #: by what failed: identify, hold, tree, watch
        self.rescans = 0  #: of the whole tree, made by the clock
        self._containers = containers
        self._roots = roots or Roots()
        self._followed = followed
        self._patience = patience_seconds
        self._rescan_seconds = rescan_seconds
        self._below = below.rstrip("/")
        self._root = _hierarchy(Layout.read(self._roots), self._below)
        self._facts = Facts(self._roots)
        self._endings = Endings(self._exit_told, self._forgotten)
        self._max_watches = max_watches
        self._tree: CgroupTree | None = None
        self._members: dict[str, _Member] = {}
        self._by_id: dict[str, str] = {}  # container id to path
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def watches(self) -> int:
        """Directories the kernel tells of."""
        return self._tree.watches if self._tree is not None else 0

    @property
    def unwatched(self) -> int:
        """Cgroups too many or too deep to be watched inside; looked at once a minute."""
        return self._tree.unwatched if self._tree is not None else 0

    @property
    def lost_events(self) -> int:
        """Times the kernel dropped events and the tree was read anew."""
        return self._tree.rescans if self._tree is not None else 0

    @property
    def known(self) -> int:
        """Cgroups that are followed."""
        return len(self._members)

    async def run(self) -> None:
        """Follow the tree until cancelled; where it cannot be watched, that is logged and tried again."""
        self._loop = asyncio.get_running_loop()
        while True:
            try:
                await self._follow()
            except OSError as error:
                self._failed("watch", f"cannot follow the cgroups in {self._root}, will try again", error)
                await asyncio.sleep(self._rescan_seconds)

    async def _follow(self) -> None:
        assert self._loop is not None
        self._tree = CgroupTree(self._root, max_watches=self._max_watches)
        try:
            self._endings.start(self._loop)
            self._take(self._tree.scan(), settled=True)
            self._forget_absent()
            heard = False
            while True:
                if self._tree.told and not heard:
                    heard = True
                    self._loop.add_reader(self._tree.fileno(), self._readable)
                untold = min(_UNTOLD_SECONDS, self._rescan_seconds)
                await asyncio.sleep(self._rescan_seconds if heard else untold)
                self.rescans += 1
                self._take(self._tree.scan())
                self._endings.look_again()
                for member in tuple(self._members.values()):
                    waits = not member.pid and not member.ended and member.timer is None
                    if waits and member.scope.kind is Kind.CONTAINER:
                        self._schedule(member, 0.0)
        finally:
            if self._tree.told:
                self._loop.remove_reader(self._tree.fileno())
            for member in tuple(self._members.values()):
                self._release(member)
            self._members.clear()
            self._endings.close()
            self._tree.close()

    def _forget_absent(self) -> None:
        """Let go of those whose cgroups went while nobody watched, between a failure and the next attempt."""
        for container_id, path in tuple(self._by_id.items()):
            if path in self._members:
                continue
            del self._by_id[container_id]
            known = self._containers.get(container_id)
            if known is not None and known.id == container_id and self._containers.offered(container_id):
                self._containers.remove(container_id, known.engine)

    # --- what the kernel tells -----------------------------------------------------------------------

    def _readable(self) -> None:
        assert self._tree is not None
        try:
            self._take(self._tree.read())
        except OSError as error:
            self._failed("tree", "cannot read the events of the cgroup tree", error)

    def _take(self, happenings: list[Happening], settled: bool = False) -> None:
        for what, path in happenings:
            path = self._below + path
            if what is What.MADE:
                self._made(path, settled)
            elif what is What.GONE:
                self._gone(path)
            else:
                self._processes(path)

    def _made(self, path: str, settled: bool) -> None:
        assert self._loop is not None
        scope = scope_of(path)
        inside = self._within_container(path)
        if inside and scope.kind is not Kind.CONTAINER:
            return  # how a container arranges itself is its own
        member = self._members[path] = _Member(scope, self._loop.time())
        if settled:
            member.made_at -= self._patience
            self._look(member)
        elif scope.kind in (Kind.CONTAINER, Kind.CGROUP):
            self._schedule(member, _SETTLE_SECONDS)
        else:
            self._schedule(member, self._patience)

    def _processes(self, path: str) -> None:
        member = self._nearest(path)
        if member is None or member.ended or self._loop is None:
            return
        if member.pid and not self._ended(member):
            return
        if member.scope.kind in (Kind.CONTAINER, Kind.CGROUP):
            self._schedule(member, _SETTLE_SECONDS)

    def _gone(self, path: str) -> None:
        member = self._members.pop(path, None)
        if member is None:
            return
        self._end(member)
        self._release(member)
        if member.found is not None:
            container = member.found.container
            if self._by_id.get(container.id) == path:
                del self._by_id[container.id]
            if not self._endings.kept(container.id) and self._containers.offered(container.id):
                self._containers.remove(container.id, container.engine)

    def _nearest(self, path: str) -> _Member | None:
        """The member a cgroup is, or is inside of."""
        while path:
            member = self._members.get(path)
            if member is not None:
                return member
            path = path.rpartition("/")[0]
        return None

    def _within_container(self, path: str) -> bool:
        parent = self._nearest(path.rpartition("/")[0])
        while parent is not None:
            if parent.scope.kind is Kind.CONTAINER or (parent.found and not parent.found.container.bare):
                return True
            parent = self._nearest(parent.scope.path.rpartition("/")[0])
        return False

    # --- what it is ----------------------------------------------------------------------------------

    def _schedule(self, member: _Member, seconds: float) -> None:
        assert self._loop is not None
        if member.timer is not None:
            member.timer.cancel()
        member.timer = self._loop.call_later(seconds, self._look, member)

    def _look(self, member: _Member) -> None:
        """Find out what a cgroup is now, and tell the registry."""
        member.timer = None
        if self._members.get(member.scope.path) is not member or self._loop is None:
            return
        try:
            self._identify(member, self._loop.time())
        except (OSError, ValueError) as error:
            self._failed("identify", f"cannot find out what cgroup {member.scope.path} is", error)
        except Exception as error:  # the files of one container must not end the search for all
            self._failed("identify", f"cannot find out what cgroup {member.scope.path} is", error)
            logger.exception("an unforeseen fault in what the files of cgroup %s say", member.scope.path)

    def _identify(self, member: _Member, now: float) -> None:
        """Raises OSError, ValueError."""
        scope = member.scope
        waited = now - member.made_at >= self._patience
        process = self._facts.first_process(self._directory(scope), scope.kind)
        if process is None and scope.kind is Kind.CONTAINER:
            # Made and not started: its processes will tell. Ended before its end could be waited for: this is it.
            if not member.pid:
                self._end(member)
            return
        if member.found is None or member.found.container.bare:
            found = self._facts.find(scope, process)
        else:
            pid = process.pid if process else 0
            found = replace(member.found, container=replace(member.found.container, pid=pid))
        container = found.container
        if (container.bare and not waited) or self._left_to_engine(member, container):
            self._schedule(member, self._patience)
            return
        member.found, member.ended = found, False
        self._by_id[container.id] = scope.path
        if container.bare:
            member.pid = container.pid
        else:
            self._endings.watch(found.exit_directory, found.storage, container.id, found.status)
            self._hold(member, container.pid, process.started_ticks if process else 0)
        self._containers.offer(container)

    def _left_to_engine(self, member: _Member, container: Container) -> bool:
        """Whether its engine is about to tell of it, and knows better."""
        if container.bare or member.left or self._containers.get(container.id) is not None:
            return False
        member.left = True
        return self._followed(container.engine)

    def _directory(self, scope: Scope) -> Path:
        return Path(f"{self._root}{scope.path[len(self._below) :]}")

    # --- how it ends ---------------------------------------------------------------------------------

    def _hold(self, member: _Member, pid: int, started_ticks: int) -> None:
        """Have the kernel tell of the end of the process with that number and start."""
        if member.pid == pid and member.pidfd >= 0:
            return
        self._release(member)
        member.pid = pid
        if pid <= 0 or self._roots.proc != Path("/proc") or self._loop is None:
            return
        try:
            member.pidfd = os.pidfd_open(pid)
            if read_process(self._roots.proc, pid).started_ticks != started_ticks:
                raise ProcessLookupError(errno.ESRCH, "another process has the number by now")
        except (ProcessLookupError, FileNotFoundError):
            self._release(member)
            member.pid = 0
            self._schedule(member, _SETTLE_SECONDS)  # it has ended already: another one, or the end
            return
        except (OSError, ValueError) as error:
            # No descriptors left, a kernel before 5.3: the tree will tell of the end.
            self._release(member)
            self._failed("hold", f"the end of process {pid} will be heard of late", error)
            return
        self._loop.add_reader(member.pidfd, self._process_ended, member)

    def _process_ended(self, member: _Member) -> None:
        """The first process ended: another one is the first now, or the container has ended."""
        self._release(member)
        member.pid = 0
        process = self._facts.first_process(self._directory(member.scope), member.scope.kind)
        if process is not None:
            self._schedule(member, _SETTLE_SECONDS)
        else:
            self._end(member)

    def _end(self, member: _Member) -> None:
        """Tell the registry that a container has no process any more, and how it ended where that is known."""
        if member.found is None or member.ended:
            return
        member.ended = True
        member.pid = 0
        container = member.found.container
        if container.bare:
            return
        known = self._containers.get(container.id)
        if known is None or known.id != container.id or known.state not in RUNNING:
            return
        found = member.found
        code = self._endings.exit_code(found.exit_directory, container.id, found.status)
        ended = replace(known, state="exited", pid=0, exit_code=code, finished_ns=time.time_ns())
        if self._containers.offered(container.id):
            self._containers.offer(ended)
        elif not self._followed(container.engine) and known.cgroup in ("", container.cgroup):
            self._containers.update(ended)  # its engine is away, and will say more when it is back

    def _ended(self, member: _Member) -> bool:
        return not (self._roots.proc / str(member.pid)).exists()

    def _exit_told(self, container_id: str, code: int) -> None:
        """conmon wrote an exit code, before or after the end was seen."""
        if not self._containers.offered(container_id):
            return
        known = self._containers.get(container_id)
        if known is None or known.id != container_id or known.state in RUNNING:
            return
        if known.exit_code != code:
            self._containers.offer(replace(known, exit_code=code))

    def _forgotten(self, container_id: str) -> None:
        """podman removed a container's directory."""
        known = self._containers.get(container_id)
        if known is None or known.id != container_id or known.state in RUNNING:
            return
        if self._containers.offered(container_id):
            self._containers.remove(container_id, known.engine)

    def _release(self, member: _Member) -> None:
        if member.timer is not None:
            member.timer.cancel()
            member.timer = None
        if member.pidfd >= 0:
            if self._loop is not None:
                self._loop.remove_reader(member.pidfd)
            with contextlib.suppress(OSError):
                os.close(member.pidfd)
            member.pidfd = -1

    def _failed(self, what: str, attempt: str, error: Exception) -> None:
        self.failures[what] = self.failures.get(what, 0) + 1
        logger.warning("%s: %s", attempt, error)


def _hierarchy(layout: Layout, below: str) -> Path:
    """The directory whose tree is followed."""
    for controller in _HIERARCHIES:
        directory = layout.directory(controller, below or layout.top(controller))
        if directory is not None and directory.is_dir():
            return directory
    raise ValueError(f"no mounted cgroup hierarchy has {below or '/'}: expected one of {_HIERARCHIES}")
