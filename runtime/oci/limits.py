"""Resource limits: checking what a create or update request asks for, and the OCI spec's ``linux.resources``.

Errors have Docker's words. What the kernel cannot do is dropped with a warning, as Docker does it. The
conversion to cgroup v2's files (shares to weight) is runc's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runtime.config import HostConfig, ThrottleDevice
from runtime.errors import BadRequest

__all__ = ["Capacity", "check_limits", "linux_resources"]

_MB = 1 << 20
_MINIMUM_MEMORY = 6 * _MB
_CFS_PERIOD_US = 100_000


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the host has and what its kernel can limit."""

    cpus: int
    cpus_available: frozenset[int]
    mems_available: frozenset[int]
    cgroup_v2: bool  #: unified; hybrid counts as v1, as runc has it
    memory: bool = True
    swap: bool = True
    pids: bool = True
    cpu_cfs: bool = True
    blkio_weight: bool = True

    @classmethod
    def probe(cls, cgroup_root: Path = Path("/sys/fs/cgroup")) -> Capacity:
        """Look at this host."""
        unified = (cgroup_root / "cgroup.controllers").exists()
        cpus = frozenset(os.sched_getaffinity(0))
        nodes = Path("/sys/devices/system/node/online")
        mems = _cpu_list(nodes.read_text().strip()) if nodes.exists() else frozenset({0})
        if unified:
            controllers = (cgroup_root / "cgroup.controllers").read_text().split()
            has = set(controllers).__contains__
            return cls(os.cpu_count() or 1, cpus, mems, True, has("memory"), has("memory"), has("pids"),
                       has("cpu"), has("io"))  # fmt: skip
        exists = [
            (cgroup_root / name).exists()
            for name in (
                "memory/memory.limit_in_bytes",
                "memory/memory.memsw.limit_in_bytes",
                "pids",
                "cpu/cpu.cfs_quota_us",
            )
        ]
        weight = any((cgroup_root / "blkio" / f"blkio.{kind}weight").exists() for kind in ("", "bfq."))
        memory, swap, pids, cfs = exists
        return cls(os.cpu_count() or 1, cpus, mems, False, memory, swap, pids, cfs, weight)


def check_limits(host: HostConfig, capacity: Capacity) -> tuple[HostConfig, list[str]]:
    """The limits that can be applied, and the warnings for those that cannot. Raises BadRequest."""
    warnings: list[str] = []
    host = _without_unsupported(host, capacity, warnings)
    _check_memory(host)
    _check_cpu(host, capacity)
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise BadRequest("Range of blkio weight is from 10 to 1000")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise BadRequest(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if host.shm_size < 0:
        raise BadRequest("SHM size can not be less than 0")
    if host.oom_kill_disable and not host.memory:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )
    for limit in host.ulimits:
        if limit.name not in _RLIMITS:
            raise BadRequest(f"invalid ulimit type: {limit.name}")
        if limit.hard != -1 and (limit.soft > limit.hard or limit.soft == -1):
            raise BadRequest(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
            )
    return host, warnings


def _without_unsupported(host: HostConfig, capacity: Capacity, warnings: list[str]) -> HostConfig:
    def lacking(what: str, then: str) -> None:
        warnings.append(f"Your kernel does not support {what} or the cgroup is not mounted. {then}")

    if host.memory and not capacity.memory:
        lacking("memory limit capabilities", "Limitation discarded.")
        host = replace(host, memory=0, memory_swap=-1)
    if host.memory_swap > 0 and host.memory and not capacity.swap:
        lacking("swap limit capabilities", "Memory limited without swap.")
        host = replace(host, memory_swap=-1)
    if host.pids_limit and host.pids_limit > 0 and not capacity.pids:
        lacking("pids limit capabilities", "PIDs limit discarded.")
        host = replace(host, pids_limit=None)
    if host.blkio_weight and not capacity.blkio_weight:
        lacking("Block I/O weight", "Weight discarded.")
        host = replace(host, blkio_weight=0, blkio_weight_device=())
    if (host.nano_cpus or host.cpu_quota) and not capacity.cpu_cfs:
        lacking("CPU CFS quota", "Quota discarded.")
        host = replace(host, nano_cpus=0, cpu_quota=0, cpu_period=0)
    if host.oom_kill_disable and capacity.cgroup_v2:
        lacking("OomKillDisable", "OomKillDisable discarded.")
        host = replace(host, oom_kill_disable=False)
    return host


def _check_memory(host: HostConfig) -> None:
    if host.memory and host.memory < _MINIMUM_MEMORY:
        raise BadRequest("Minimum memory limit allowed is 6MB")
    if host.memory and 0 < host.memory_swap < host.memory:
        raise BadRequest("Minimum memoryswap limit should be larger than memory limit, see usage")
    if not host.memory and host.memory_swap > 0:
        raise BadRequest("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.memory_swappiness is not None and not -1 <= host.memory_swappiness <= 100:
        raise BadRequest(f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100")
    if host.memory_reservation and host.memory_reservation < _MINIMUM_MEMORY:
        raise BadRequest("Minimum memory reservation allowed is 6MB")
    if host.memory and host.memory < host.memory_reservation:
        raise BadRequest("Minimum memory limit can not be less than memory reservation limit, see usage")


def _check_cpu(host: HostConfig, capacity: Capacity) -> None:
    if host.nano_cpus and host.cpu_period:
        raise BadRequest("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if host.nano_cpus and host.cpu_quota:
        raise BadRequest("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if not 0 <= host.nano_cpus <= capacity.cpus * 1_000_000_000:
        raise BadRequest(
            f"Range of CPUs is from 0.01 to {capacity.cpus}.00, "
            f"as there are only {capacity.cpus} CPUs available"
        )
    if host.cpu_shares < 0:
        raise BadRequest(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    if host.cpu_period and not 1_000 <= host.cpu_period <= 1_000_000:
        raise BadRequest(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < host.cpu_quota < 1_000:
        raise BadRequest("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    _check_set(host.cpuset_cpus, capacity.cpus_available, "cpus", "CPUs")
    _check_set(host.cpuset_mems, capacity.mems_available, "mems", "memory nodes")


def _check_set(text: str, available: frozenset[int], name: str, what: str) -> None:
    if not text:
        return
    try:
        wanted = _cpu_list(text)
    except ValueError as error:
        raise BadRequest(f"Invalid value {text} for cpuset {name}") from error
    if not wanted <= available:
        raise BadRequest(
            f"Requested {what} are not available - requested {text}, available: {_ranges(available)}"
        )


def _cpu_list(text: str) -> frozenset[int]:
    """``0-3,5`` (cpuset(7), list format); ValueError for anything else."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        low, high = int(first), int(last) if dash else int(first)
        if not 0 <= low <= high < 8192:
            raise ValueError(part)
        numbers.update(range(low, high + 1))
    return frozenset(numbers)


def _ranges(numbers: frozenset[int]) -> str:
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)


def linux_resources(host: HostConfig) -> dict[str, Any]:
    """The spec's ``linux.resources`` without device rules, from limits that ``check_limits`` returned."""
    out: dict[str, Any] = {}
    if memory := _memory(host):
        out["memory"] = memory
    if cpu := _cpu(host):
        out["cpu"] = cpu
    if host.pids_limit and host.pids_limit > 0:
        out["pids"] = {"limit": host.pids_limit}
    if block := _block_io(host):
        out["blockIO"] = block
    return out


def _memory(host: HostConfig) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if host.memory:
        out["limit"] = host.memory
        out["swap"] = host.memory_swap or 2 * host.memory
    if host.memory_reservation:
        out["reservation"] = host.memory_reservation
    if host.memory_swappiness is not None and host.memory_swappiness >= 0:
        out["swappiness"] = host.memory_swappiness
    if host.kernel_memory_tcp:
        out["kernelTCP"] = host.kernel_memory_tcp
    if host.oom_kill_disable:
        out["disableOOMKiller"] = True
    return out


def _cpu(host: HostConfig) -> dict[str, Any]:
    quota, period = host.cpu_quota, host.cpu_period
    if host.nano_cpus:
        period = _CFS_PERIOD_US
        quota = host.nano_cpus * period // 1_000_000_000
    values = {
        "shares": host.cpu_shares,
        "quota": quota,
        "period": period,
        "realtimeRuntime": host.cpu_rt_runtime,
        "realtimePeriod": host.cpu_rt_period,
        "cpus": host.cpuset_cpus,
        "mems": host.cpuset_mems,
    }
    return {key: value for key, value in values.items() if value}


def _block_io(host: HostConfig) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if host.blkio_weight:
        out["weight"] = host.blkio_weight
    if host.blkio_weight_device:
        out["weightDevice"] = [
            {**_block_device(item.path), "weight": item.weight} for item in host.blkio_weight_device
        ]
    for key, devices in (
        ("throttleReadBpsDevice", host.blkio_read_bps),
        ("throttleWriteBpsDevice", host.blkio_write_bps),
        ("throttleReadIOPSDevice", host.blkio_read_iops),
        ("throttleWriteIOPSDevice", host.blkio_write_iops),
    ):
        if devices:
            out[key] = _throttles(devices)
    return out


def _throttles(devices: Sequence[ThrottleDevice]) -> list[dict[str, int]]:
    return [{**_block_device(item.path), "rate": item.rate} for item in devices]


def _block_device(path: str) -> dict[str, int]:
    try:
        found = Path(path).stat()
    except OSError as error:
        raise BadRequest(f"{path}: {(error.strerror or str(error)).lower()}") from error
    if not stat.S_ISBLK(found.st_mode):
        raise BadRequest(f"{path}: not a block device")
    return {"major": os.major(found.st_rdev), "minor": os.minor(found.st_rdev)}


_RLIMITS = frozenset(
    (
        *("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice"),
        *("nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"),
    )
)
