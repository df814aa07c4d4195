"""Reads slow groups of counters of all running containers in a thread of its own, within a CPU budget.

Each group has its interval; containers are spread over it, so that no moment has more to do than another,
and what the budget does not allow waits its turn (the age of the readings says how long). What a group
reads is its own business (``collector/lanes/`` and ``collector/disk/``); the readings go to a ``Board``.
"""

from __future__ import annotations

import errno
import heapq
import logging
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from collector.in_thread import run_in_thread
from collector.lanes.board import Board, Reading
from collector.lanes.inside import shared_readings
from collector.target import Target

__all__ = ["Board", "Forgetful", "Group", "GroupState", "Lane", "Reading"]

logger = logging.getLogger(__name__)

#: Errors that say a process or cgroup has ended while it was read.
GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV})

#: The share of a core that one group may use for one container: a reading that costs more comes less often.
_SHARE = 0.001

#: Seconds a reading may go on when the agent ends: a file system or a kernel that hangs is not waited for.
_PATIENCE = 10.0

#: What a group fails with where a container or the kernel shows it something it was not made for.
_FAILURES = (OSError, ValueError, LookupError, struct.error)

#: A container's readings are taken away when nothing newer came for this many intervals for a failure.
_KEEP = 3


class Group(Protocol):
    """A set of counters that are read together."""

    @property
    def name(self) -> str:
        """cAdvisor's name of the group where it has one, in the configuration and in ``{group="…"}``."""

    @property
    def seconds(self) -> float:
        """The interval between two readings of one container."""

    def read(self, target: Target) -> Sequence[Reading]:
        """Read one container. Always called in the lane's thread; may take long, may keep state.

        Raises OSError (one that says "gone" is no failure) or ValueError; the container's last readings
        stay for a while then.
        """


@runtime_checkable
class Forgetful(Protocol):
    """A group that keeps something for each container."""

    def forget(self, container_id: str) -> None:
        """The container has ended: let go of what is kept for it."""


@dataclass(slots=True)
class GroupState:
    """How a group fares."""

    group: Group
    reads: int = 0
    failures: int = 0
    postponed: int = 0  #: readings that were late by more than an interval, for want of budget
    cpu_seconds: float = 0.0
    times: dict[str, float] = field(default_factory=dict)  #: last reading of each running container
    failed: dict[str, str] = field(default_factory=dict)  #: containers whose last reading failed, and why

    def age(self, now: float | None = None) -> float:
        """Seconds since the oldest of the running containers' last readings; 0 where there are none."""
        oldest = min(tuple(self.times.values()), default=None)
        return 0.0 if oldest is None else max((time.monotonic() if now is None else now) - oldest, 0.0)


class Lane:
    """Groups read one after the other, in one thread, over the containers that run."""

    def __init__(
        self,
        name: str,
        targets: Callable[[], Mapping[str, Target]],
        board: Board,
        groups: Iterable[Group],
        *,
        budget: float = 0.02,
        tick: float = 1.0,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        """``targets`` gives the running containers by id (``Sampler.targets``); ``budget`` is the share
        of one core that the lane may use on average, ``tick`` how often it looks what is due, in seconds;
        ``stop`` is set when the lane is to end, for groups whose reading takes long.
        """
        self.name = name
        self.groups = tuple(GroupState(group) for group in groups)
        self._targets = targets
        self._board = board
        self._budget = budget
        self._tick = tick
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._stop = stop or threading.Event()
        self._due: list[tuple[float, int, str, int]] = []
        self._seen: dict[str, Target] = {}
        self._sequence = 0
        # Each container's own: its groups are read one after the other, for what they read is near together.
        self._phases: dict[str, float] = {}
        self._taken_up = 0
        self._credit = budget * 10 * tick  # CPU seconds that may be used now
        self._earned: float | None = None  # when the credit was last added to

    # --- running -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read until cancelled, in a thread of the lane's own."""
        self._stop.clear()
        await run_in_thread(f"lane {self.name}", self._loop, self._stop.set, _PATIENCE)

    def step(self) -> None:
        """Read what is due and affordable now. Never raises for a single failure."""
        now = self._clock()
        self._follow(now)
        self._earn(now)
        with shared_readings():
            self._read_due(now)

    def _read_due(self, now: float) -> None:
        """Read what is due until nothing is, or the credit is used up."""
        while self._due and self._due[0][0] <= now and not self._stop.is_set():
            if self._credit <= 0:
                return
            due, _, container_id, number = heapq.heappop(self._due)
            target = self._seen.get(container_id)
            if target is None:
                continue
            state = self.groups[number]
            if now - due > state.group.seconds:
                state.postponed += 1
            interval = state.group.seconds
            # Containers that are taken up together are read at once, and moved apart by their second time.
            again = (
                due + interval
                if container_id in state.times
                else now + interval * self._phases.get(container_id, 1.0)
            )
            before = self._cpu_clock()
            self._read(state, target)
            used = self._cpu_clock() - before
            state.cpu_seconds += used
            self._credit -= used
            self._plan(
                container_id, number, max(again if again > now else now + interval, now + used / _SHARE)
            )

    def _loop(self) -> None:
        while not self._stop.is_set():
            self.step()
            self._stop.wait(self._tick)

    def _earn(self, now: float) -> None:
        """Add what the budget allows for the time that passed, up to ten ticks' worth."""
        if self._earned is not None:
            most = self._budget * 10 * self._tick
            self._credit = min(self._credit + (now - self._earned) * self._budget, most)
        self._earned = now

    # --- what is due ---------------------------------------------------------------------------------

    def _follow(self, now: float) -> None:
        """Take up containers that started, let go of those that ended."""
        running = self._targets()
        self._board.expire()
        if running == self._seen:
            return
        for container_id in [key for key, target in self._seen.items() if running.get(key) is not target]:
            self._let_go(container_id)
        started = [container_id for container_id in running if container_id not in self._seen]
        for container_id in started:
            self._seen[container_id] = running[container_id]
            self._phases[container_id] = self._phase()
            for number in range(len(self.groups)):
                self._plan(container_id, number, now)

    def _let_go(self, container_id: str) -> None:
        del self._seen[container_id]
        self._phases.pop(container_id, None)
        self._due = [item for item in self._due if item[2] != container_id]
        heapq.heapify(self._due)
        for state in self.groups:
            state.times.pop(container_id, None)
            state.failed.pop(container_id, None)
            if isinstance(state.group, Forgetful):
                state.group.forget(container_id)
        self._board.ended(container_id)

    def _plan(self, container_id: str, number: int, due: float) -> None:
        self._sequence += 1
        heapq.heappush(self._due, (due, self._sequence, container_id, number))

    def _phase(self) -> float:
        """Between 0.5 and 1.5, evenly, however many are asked for."""
        self._taken_up += 1
        return 0.5 + self._taken_up * 0.6180339887 % 1.0

    # --- reading -------------------------------------------------------------------------------------

    def _read(self, state: GroupState, target: Target) -> None:
        container = target.container
        try:
            readings = state.group.read(target)
        except _FAILURES as error:
            if isinstance(error, OSError) and error.errno in GONE:
                return  # it ended; discovery will tell
            self._failed(state, target, error)
            return
        state.reads += 1
        now = self._clock()
        self._board.put(container.id, state.group.name, readings, now)
        state.times[container.id] = now
        state.failed.pop(container.id, None)

    def _failed(self, state: GroupState, target: Target, error: Exception) -> None:
        container, group = target.container, state.group
        state.failures += 1
        # The first failure of a kind is worth a line, its repetition in every container is not.
        level = logging.DEBUG if str(error) in state.failed.values() else logging.WARNING
        state.failed[container.id] = str(error)
        logger.log(level, "cannot read group %s of container %s: %s", group.name, container.name, error)
        last = state.times.get(container.id)
        if last is not None and self._clock() - last > _KEEP * group.seconds:
            self._board.drop(container.id, group.name)
            del state.times[container.id]
