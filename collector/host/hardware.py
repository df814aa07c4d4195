"""What the machine is built of: memory modules, NUMA nodes, caches, threads that share a core.

Read from sysfs (the kernel's Documentation/ABI/testing/sysfs-devices-system-cpu, …/stable/sysfs-devices-node,
admin-guide/RAS, driver-api/nvdimm). What is not there is left out: most virtual machines have no modules to
tell of. Sizes of the whole machine are ``machine.py``'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from collector.roots import Roots

__all__ = ["Cache", "Hardware", "Modules", "Thread", "parse_cpu_list", "read_hardware"]

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Cache(NamedTuple):
    """A cache of a core, or of all cores of a node."""

    node: int
    core: int | None  #: None: all cores of the node share it
    kind: str  #: ``Data``, ``Instruction``, ``Unified``
    level: int
    size_bytes: int


class Thread(NamedTuple):
    """A logical CPU that is online."""

    node: int
    core: int
    thread: int
    siblings: int  #: logical CPUs of its core, itself among them


class Modules(NamedTuple):
    """Memory modules of one type."""

    number: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Hardware:
    """The parts; nodes by their numbers."""

    books: int = 0  #: of s390x, which alone has them
    drawers: int = 0
    modules: Mapping[str, Modules] = field(default_factory=dict)  #: by type, as the memory controllers tell
    #: Persistent memory by mode, in bytes; a mode the kernel does not tell of is not there.
    nvm_bytes: Mapping[str, int] = field(default_factory=dict)
    caches: tuple[Cache, ...] = ()
    threads: tuple[Thread, ...] = ()
    node_memory: Mapping[int, int] = field(default_factory=dict)  #: bytes
    huge_pages: Mapping[tuple[int, int], int] = field(default_factory=dict)  #: by node and size in kB
    distances: Mapping[tuple[int, int], int] = field(default_factory=dict)  #: from node to node


def read_hardware(roots: Roots, *, topology: bool = False) -> Hardware:
    """Read it; the topology, some files for each CPU, only where asked for.

    Raises OSError, ValueError where sysfs has something else than it is known for.
    """
    cpus = roots.sys / "devices/system/cpu"
    books, drawers = _distinct(cpus, "book_id"), _distinct(cpus, "drawer_id")
    modules, nvm = _modules(roots.sys / "devices/system/edac/mc"), _nvm(roots.sys / "bus/nd/devices")
    if not topology:
        return Hardware(books, drawers, modules, nvm)
    caches: list[Cache] = []
    threads: list[Thread] = []
    memory: dict[int, int] = {}
    pages: dict[tuple[int, int], int] = {}
    distances: dict[tuple[int, int], int] = {}
    for node, members, directory in _nodes(roots):
        cores = _cores(cpus, members)
        threads += [
            Thread(node, core, thread, len(shared))
            for (_, core), shared in cores.items()
            for thread in shared
        ]
        caches += _caches(cpus, node, cores)
        if directory is not None:
            if (size := _node_memory(directory)) is not None:
                memory[node] = size
            pages |= {(node, kilobytes): count for kilobytes, count in _huge_pages(directory)}
            for target, distance in enumerate((_text(directory / "distance") or "").split()):
                distances[node, target] = int(distance)
    unique = tuple(dict.fromkeys(caches))
    return Hardware(books, drawers, modules, nvm, unique, tuple(threads), memory, pages, distances)


def parse_cpu_list(text: str) -> list[int]:
    """The kernel's lists of CPUs: ``0-2,5``. Raises ValueError on another form."""
    cpus: list[int] = []
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        cpus += range(int(first), int(last or first) + 1)
    return cpus


def _nodes(roots: Roots) -> Iterator[tuple[int, list[int], Path | None]]:
    """Number, CPUs and directory of each node; without NUMA the sockets, as cAdvisor numbers them."""
    cpus = roots.sys / "devices/system/cpu"
    found = sorted((roots.sys / "devices/system/node").glob("node[0-9]*"), key=_number)
    for directory in found:
        yield _number(directory), parse_cpu_list(_text(directory / "cpulist") or ""), directory
    if found:
        return
    sockets: dict[int, list[int]] = {}
    for cpu in sorted(map(_number, cpus.glob("cpu[0-9]*"))):
        if (socket := _integer(cpus / f"cpu{cpu}/topology/physical_package_id")) is not None:
            sockets.setdefault(socket, []).append(cpu)
    for number, members in sorted(sockets.items()):
        yield number, members, None


def _cores(cpus: Path, members: list[int]) -> dict[tuple[int, int], list[int]]:
    """Threads by socket and core; a CPU that is offline has no topology."""
    cores: dict[tuple[int, int], list[int]] = {}
    for cpu in members:
        core = _integer(cpus / f"cpu{cpu}/topology/core_id")
        socket = _integer(cpus / f"cpu{cpu}/topology/physical_package_id")
        if core is not None and socket is not None:
            cores.setdefault((socket, core), []).append(cpu)
    return cores


def _caches(cpus: Path, node: int, cores: Mapping[tuple[int, int], list[int]]) -> Iterator[Cache]:
    """Caches as cAdvisor assigns them: to a core up to level 2, above it to the node where all of it shares one."""
    for (_, core), threads in cores.items():
        for index in sorted((cpus / f"cpu{threads[0]}/cache").glob("index[0-9]*"), key=_number):
            level, size = _integer(index / "level"), _text(index / "size")
            sharing = len(parse_cpu_list(_text(index / "shared_cpu_list") or ""))
            if level is None or size is None:
                continue
            kind, capacity = _text(index / "type") or "", _size(size)
            if level > 2:
                whole = sharing == len(threads) * len(cores)
                yield Cache(node, None if whole else core, kind, level, capacity)
            elif sharing == len(threads):
                yield Cache(node, core, kind, level, capacity)


def _node_memory(directory: Path) -> int | None:
    found = re.search(r"MemTotal:\s*(\d+) kB", _text(directory / "meminfo") or "")
    return int(found[1]) * 1024 if found else None


def _huge_pages(directory: Path) -> Iterator[tuple[int, int]]:
    """Size in kB and number of pages set aside."""
    for pages in sorted((directory / "hugepages").glob("hugepages-*kB")):
        count = _integer(pages / "nr_hugepages")
        if count is not None:
            yield int(pages.name.removeprefix("hugepages-").removesuffix("kB")), count


def _modules(controllers: Path) -> dict[str, Modules]:
    found: dict[str, Modules] = {}
    for module in sorted(controllers.glob("mc[0-9]*/dimm[0-9]*")):
        kind, megabytes = _text(module / "dimm_mem_type"), _integer(module / "size")
        if kind is not None and megabytes is not None:
            count, size = found.get(kind, Modules(0, 0))
            found[kind] = Modules(count + 1, size + (megabytes << 20))
    return found


def _nvm(devices: Path) -> dict[str, int]:
    """Persistent memory: regions are what is used directly; what serves as memory the kernel does not tell."""
    direct = sum(_integer(region / "size") or 0 for region in devices.glob("region[0-9]*"))
    modules = any(devices.glob("nmem[0-9]*"))
    return {"app_direct_mode": direct} if modules or direct else {"app_direct_mode": 0, "memory_mode": 0}


def _distinct(cpus: Path, name: str) -> int:
    return len({text for path in cpus.glob(f"cpu[0-9]*/topology/{name}") if (text := _text(path))})


def _number(path: Path) -> int:
    return int(path.name.lstrip("abcdefghijklmnopqrstuvwxyz"))


def _size(text: str) -> int:
    return int(text[:-1]) * _UNITS[text[-1]] if text[-1:] in _UNITS else int(text)


def _integer(path: Path) -> int | None:
    text = _text(path)
    return None if text is None else int(text)


def _text(path: Path) -> str | None:
    """The file's text, None where the machine does not have it."""
    try:
        return path.read_text(errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
