"""All cgroup counters of one container: opens the right reader per controller and reads them together.

A controller that fails is named in the sample's errors and costs the others nothing; a cgroup that was
removed answers ENODEV, and what was read before stays as the last value. Files stay open; where there are
too many containers for that, those of the last are opened at every read.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from collector.cgroup.descriptors import Descriptors
from collector.cgroup.files import all_or_none
from collector.cgroup.layout import UNIFIED, Layout
from collector.cgroup.pids import PidsReader
from collector.cgroup.v1.blkio import BlkioReader
from collector.cgroup.v1.cpu import CpuReader as CpuReaderV1
from collector.cgroup.v1.memory import MemoryReader as MemoryReaderV1
from collector.cgroup.v2.cpu import CpuReader as CpuReaderV2
from collector.cgroup.v2.io import IoReader
from collector.cgroup.v2.memory import MemoryReader as MemoryReaderV2
from collector.cgroup.v2.pressure import PressureReader
from collector.sample import Interface, Sample

__all__ = ["CgroupReader"]

_T = TypeVar("_T")

#: Limits change when somebody changes them: looked at this often, and when discovery says "changed".
LIMITS_EVERY_NS = 10_000_000_000
#: Runtimes put the first process into a new cgroup and set the limits afterwards: the first reads all look.
_FIRST_READS = 3

_EMPTY = Sample(0)

#: What all readers of this process keep.
_ALL = Descriptors()
_TOO_MANY = frozenset({errno.EMFILE, errno.ENFILE})


class _Keeps(Protocol):
    def descriptors(self) -> tuple[int, ...]: ...


class CgroupReader:
    """One cgroup on every hierarchy it is in, its files kept open until ``close``."""

    def __init__(
        self,
        layout: Layout,
        paths: Mapping[str, str],
        per_cpu: bool = False,
        descriptors: Descriptors = _ALL,
    ) -> None:
        """Open what exists. Raises FileNotFoundError when no hierarchy has the cgroup."""
        found = layout.directories(paths)
        if not found:
            raise FileNotFoundError(errno.ENOENT, "no cgroup directory at", ", ".join(set(paths.values())))
        self.gone = False  #: a read found the cgroup removed
        self.directories: Mapping[str, Path] = found  #: by controller; the v2 tree's key is ``UNIFIED``
        self._limits_ns = 0
        self._first_reads = _FIRST_READS
        self._kept: list[_Keeps] = []
        self._count = 0  # of descriptors kept, 0 while the files are opened at every read
        self._descriptors = descriptors
        self._per_cpu = per_cpu
        self._closed = False
        self._open()
        self._keep_or_close()

    @property
    def keeps(self) -> bool:
        """Whether its files stay open."""
        return self._count > 0

    def _open(self) -> None:
        """Open the files; none is open where that cannot be done for want of descriptors. Raises OSError."""
        try:
            with all_or_none():
                self._open_all(self.directories, self._per_cpu)
        except OSError as error:
            self._kept.clear()
            if error.errno not in _TOO_MANY:
                raise

    def _keep_or_close(self) -> None:
        """Keep what is open if there is room for it."""
        count = sum(fd >= 0 for reader in self._kept for fd in reader.descriptors())
        if self._descriptors.room(count):
            self._count = count
            self._descriptors.take(count)
        else:
            self._close()

    def _open_all(self, found: Mapping[str, Path], per_cpu: bool) -> None:
        unified = found.get(UNIFIED)
        keep = self._kept.append
        if "cpuacct" in found:
            self._cpu: CpuReaderV1 | CpuReaderV2 = CpuReaderV1(found["cpuacct"], found.get("cpu"), per_cpu)
        else:
            self._cpu = CpuReaderV2(unified)
        keep(self._cpu)
        if "memory" in found:
            self._memory: MemoryReaderV1 | MemoryReaderV2 = MemoryReaderV1(found["memory"])
        else:
            self._memory = MemoryReaderV2(unified)
        keep(self._memory)
        self._io = BlkioReader(found["blkio"]) if "blkio" in found else IoReader(unified)
        keep(self._io)
        self._pids = PidsReader(found.get("pids", unified))
        keep(self._pids)
        self._pressure = PressureReader(unified)
        keep(self._pressure)

    def read(
        self,
        now_ns: int,
        previous: Sample | None = None,
        interfaces: tuple[Interface, ...] = (),
        host_cpu_seconds: float | None = None,
        errors: tuple[str, ...] = (),
    ) -> Sample:
        """Everything at this moment; what the caller read elsewhere is put in as it is.

        Never raises: a controller's failure is in ``Sample.errors``.
        """
        if self._count:
            return self._read(now_ns, previous, interfaces, host_cpu_seconds, errors)
        trouble = self._open_again()
        if trouble:
            why = errors if self.gone else (*errors, trouble)
            return replace(
                previous or _EMPTY,
                time_ns=now_ns,
                interfaces=interfaces,
                errors=why,
                host_cpu_seconds=host_cpu_seconds,
            )
        sample = self._read(now_ns, previous, interfaces, host_cpu_seconds, errors)
        self._keep_or_close()
        return sample

    def _open_again(self) -> str:
        """Open the files for one read; why that is not possible, or nothing."""
        self._first_reads = _FIRST_READS  # readers made anew know no limits yet
        # What is gone and what never was would else look the same.
        if self._closed or not all(directory.is_dir() for directory in self.directories.values()):
            self.gone = True
            return "cgroup: gone"
        try:
            self._open()
        except OSError as error:
            return f"cgroup: {error}"
        return "" if self._kept else f"cgroup: {os.strerror(errno.EMFILE)}"

    def _read(
        self,
        now_ns: int,
        previous: Sample | None,
        interfaces: tuple[Interface, ...],
        host_cpu_seconds: float | None,
        errors: tuple[str, ...],
    ) -> Sample:
        failed: list[str] | None = None
        if self._first_reads or now_ns - self._limits_ns >= LIMITS_EVERY_NS:
            failed = []
            self._first_reads = max(self._first_reads - 1, 0)
            self.refresh_limits(failed)
            self._limits_ns = now_ns
        try:
            cpu = self._cpu.read()
            still = cpu is not None and previous is not None and cpu is previous.cpu and failed is None
            memory = self._memory.read(still)
            block_io = self._io.read()
            pids = self._pids.read(still)
            pressure = self._pressure.read()
        except (OSError, ValueError):  # some controller failed: find out which, keep the others
            before = previous or _EMPTY
            failed = failed or []
            cpu = self._part("cpu", self._cpu.read, before.cpu, None, failed)
            memory = self._part("memory", self._memory.read, before.memory, None, failed)
            block_io = self._part("io", self._io.read, before.block_io, (), failed)
            pids = self._part("pids", self._pids.read, before.pids, None, failed)
            pressure = self._part("pressure", self._pressure.read, before.pressure, {}, failed)
        return Sample(
            now_ns,
            cpu,
            memory,
            block_io,
            pids,
            self._pids.limit,
            None,
            interfaces,
            pressure,
            (*errors, *failed) if failed else errors,
            host_cpu_seconds,
            (),
            self._pids.limit_events,
        )

    def refresh_limits(self, errors: list[str] | None = None) -> None:
        """Read the limits again; failures are appended to ``errors``."""
        if not self._kept:
            return  # the next read does
        for name, reader in (("cpu", self._cpu), ("memory", self._memory), ("pids", self._pids)):
            try:
                reader.read_limits()
            except (OSError, ValueError) as error:
                if getattr(error, "errno", 0) == errno.ENODEV:
                    self.gone = True
                elif errors is not None:
                    errors.append(f"{name} limits: {error}")

    def close(self) -> None:
        """Give all descriptors back. No read may follow."""
        self._closed = True
        self._close()

    def _close(self) -> None:
        self._descriptors.take(-self._count)
        self._count = 0
        for reader in self._kept:
            for fd in reader.descriptors():
                if fd >= 0:
                    os.close(fd)
        self._kept.clear()

    def _part(self, name: str, read: Callable[[], _T], before: _T, nothing: _T, errors: list[str]) -> _T:
        try:
            return read()
        except OSError as error:
            if error.errno == errno.ENODEV:
                self.gone = True
                return before
            errors.append(f"{name}: {error}")
        except ValueError as error:
            errors.append(f"{name}: {error}")
        return nothing
