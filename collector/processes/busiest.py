"""The busiest processes of each container in one step of time: choosing, adding up, and as bytes for the disk.

What is read of a process is ``scan.py``'s, when and where steps are kept ``recorder.py``'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import orjson

__all__ = [
    "BY_MEMORY",
    "BusyProcess",
    "BusyThread",
    "Group",
    "Step",
    "added",
    "choose",
    "decode_step",
    "encode_step",
    "folded",
    "idle",
]

#: How many are kept of each container and step: by CPU, by memory, by bytes read and written.
_BY_CPU, BY_MEMORY, _BY_IO = 5, 3, 3
_THREADS = 3
_VERSION = 1

#: A process: its number and its start in ticks since boot.
Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class BusyThread:
    """A thread in one step."""

    tid: int
    start_ticks: int
    name: str
    cpu_us: int


@dataclass(frozen=True, slots=True)
class BusyProcess:
    """A process in one step: what it used in it, what it had at its end."""

    pid: int
    start_ticks: int
    started_ns: int  #: since 1970
    parent: int
    name: str
    command: str  #: shortened
    uid: int
    state: str
    threads: int
    cpu_us: int
    cpu_total_us: int  #: since it started
    resident_bytes: int
    read_bytes: int  #: from storage
    write_bytes: int
    busiest: tuple[BusyThread, ...]  #: by CPU; empty where it is one thread, or none could be compared

    @property
    def key(self) -> Key:
        """What it is recognised by."""
        return self.pid, self.start_ticks

    @property
    def io_bytes(self) -> int:
        """Read and written."""
        return self.read_bytes + self.write_bytes


@dataclass(frozen=True, slots=True)
class Group:
    """The busiest processes of one container, or of the host outside containers (``/``)."""

    id: str
    name: str
    processes: tuple[BusyProcess, ...]
    others: int = 0  #: processes that are not among them
    others_cpu_us: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What changed within one step; in a whole one everything that is."""

    span_us: int  #: how long it took; 0: nothing before it to compare with
    whole: bool
    groups: tuple[Group, ...]  #: one without processes: the container has none any more


def choose(processes: Sequence[BusyProcess]) -> tuple[tuple[BusyProcess, ...], int, int]:
    """Those worth keeping, the busiest first, and how many others there are with how much CPU time (µs)."""
    if len(processes) > _BY_CPU + BY_MEMORY + _BY_IO:
        used = sorted((one for one in processes if one.cpu_us), key=attrgetter("cpu_us"), reverse=True)
        moved = sorted((one for one in processes if one.io_bytes), key=attrgetter("io_bytes"), reverse=True)
        largest = sorted(processes, key=attrgetter("resident_bytes"), reverse=True)
        kept = {one.key: one for one in (*used[:_BY_CPU], *largest[:BY_MEMORY], *moved[:_BY_IO])}
    else:
        kept = {one.key: one for one in processes}
    chosen = sorted(kept.values(), key=lambda one: (-one.cpu_us, -one.resident_bytes, one.pid))
    rest = sum(one.cpu_us for one in processes) - sum(one.cpu_us for one in chosen)
    return tuple(chosen), len(processes) - len(chosen), rest


def added(groups: Sequence[Group]) -> Group:
    """One container's groups of several steps, in their order, as one of all that time."""
    found: dict[Key, BusyProcess] = {}
    for group in groups:
        for process in group.processes:
            before = found.get(process.key)
            found[process.key] = process if before is None else _sum(before, process)
    chosen, others, cpu_us = choose(list(found.values()))
    names = (group.name for group in reversed(groups) if group.name)  # the step in which it is gone has none
    return Group(
        groups[-1].id,
        next(names, ""),
        chosen,
        max(others, max(group.others for group in groups)),
        cpu_us + sum(group.others_cpu_us for group in groups),
    )


def _sum(before: BusyProcess, now: BusyProcess) -> BusyProcess:
    return BusyProcess(
        now.pid,
        now.start_ticks,
        now.started_ns,
        now.parent,
        now.name,
        now.command,
        now.uid,
        now.state,
        now.threads,
        before.cpu_us + now.cpu_us,
        now.cpu_total_us,
        now.resident_bytes,
        before.read_bytes + now.read_bytes,
        before.write_bytes + now.write_bytes,
        busiest_threads((*before.busiest, *now.busiest)),
    )


def busiest_threads(threads: Iterable[BusyThread], most: int = _THREADS) -> tuple[BusyThread, ...]:
    """The busiest of these, a thread that is there several times added up."""
    sums: dict[Key, BusyThread] = {}
    for thread in threads:
        if thread.cpu_us > 0:
            before = sums.get((thread.tid, thread.start_ticks))
            cpu_us = thread.cpu_us + (before.cpu_us if before else 0)
            sums[thread.tid, thread.start_ticks] = BusyThread(
                thread.tid, thread.start_ticks, thread.name, cpu_us
            )
    return tuple(sorted(sums.values(), key=lambda one: (-one.cpu_us, one.tid))[:most])


def folded(steps: Iterable[Step]) -> Mapping[str, Group]:
    """How every container was in the last of these steps.

    What that does not mention is as it was before, having used next to nothing.
    """
    state: dict[str, Group] = {}
    last: Sequence[Group] = ()
    for step in steps:
        if step.whole:
            state.clear()
        last = step.groups
        for group in last:
            if group.processes:
                state[group.id] = group
            else:
                state.pop(group.id, None)
    named = {group.id for group in last}
    return {key: group if key in named else idle(group) for key, group in state.items()}


def idle(group: Group) -> Group:
    """The container as it was, having used nothing since."""
    processes = (replace(one, cpu_us=0, read_bytes=0, write_bytes=0, busiest=()) for one in group.processes)
    return Group(group.id, group.name, tuple(processes), group.others)


def encode_step(step: Step) -> bytes:
    """As JSON, fields by their place."""
    groups = [
        (g.id, g.name, g.others, g.others_cpu_us, [_packed(process) for process in g.processes])
        for g in step.groups
    ]
    return orjson.dumps((_VERSION, step.span_us, step.whole, groups))


def _packed(process: BusyProcess) -> tuple[object, ...]:
    return (
        process.pid,
        process.start_ticks,
        process.started_ns,
        process.parent,
        process.name,
        process.command,
        process.uid,
        process.state,
        process.threads,
        process.cpu_us,
        process.cpu_total_us,
        process.resident_bytes,
        process.read_bytes,
        process.write_bytes,
        [(one.tid, one.start_ticks, one.name, one.cpu_us) for one in process.busiest],
    )


def decode_step(data: bytes) -> Step:
    """``encode_step`` undone. Raises ValueError for what is none."""
    try:
        version, span_us, whole, groups = orjson.loads(data)
        if version != _VERSION:
            raise ValueError(f"version {version}, expected {_VERSION}")
        return Step(
            span_us,
            whole,
            tuple(
                Group(identity, name, tuple(map(_unpacked, processes)), others, cpu_us)
                for identity, name, others, cpu_us, processes in groups
            ),
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"a step of processes that cannot be read: {error}") from error


def _unpacked(fields: Sequence[object]) -> BusyProcess:
    *plain, threads = fields
    assert isinstance(threads, list)
    return BusyProcess(*plain, tuple(BusyThread(*one) for one in threads))  # type: ignore[call-arg, arg-type]
