"""Linux capabilities: Docker's default set and what ``--cap-add``, ``--cap-drop`` and ``--privileged`` make of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from runtime.errors import BadRequest

__all__ = ["DEFAULT", "all_capabilities", "effective_capabilities"]

#: In the order of linux/capability.h, whose numbers are the positions.
_NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip

#: What a container has when nothing is asked (docs.docker.com, "Runtime privilege and Linux capabilities").
DEFAULT = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP",
        "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
    )
)  # fmt: skip


@cache
def all_capabilities(status: Path = Path("/proc/self/status")) -> tuple[str, ...]:
    """Every capability that can be given: those in this process's bounding set (proc(5): CapBnd)."""
    text = status.read_text()
    mask = int(text.partition("CapBnd:")[2].split()[0], 16)
    return tuple(f"CAP_{name}" for number, name in enumerate(_NAMES) if mask >> number & 1)


def effective_capabilities(
    add: Sequence[str], drop: Sequence[str], privileged: bool = False
) -> tuple[str, ...]:
    """The container's capabilities. Raises BadRequest for names that are no capability."""
    if privileged:
        return all_capabilities()
    added, dropped = _normal(add, "CapAdd"), _normal(drop, "CapDrop")
    if "ALL" in added:
        return tuple(cap for cap in all_capabilities() if cap not in dropped)
    start = () if "ALL" in dropped else DEFAULT
    kept = [cap for cap in start if cap not in dropped]
    return tuple(dict.fromkeys([*kept, *(cap for cap in added if cap != "ALL")]))


def _normal(names: Sequence[str], field: str) -> list[str]:
    out = []
    for name in names:
        upper = name.upper()
        if upper == "ALL":
            out.append(upper)
            continue
        full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
        if full.removeprefix("CAP_") not in _NAMES:
            raise BadRequest(f'invalid {field}: unknown capability: "{full}"')
        if full not in all_capabilities():
            raise BadRequest(
                f"invalid {field}: capability not supported by your kernel "
                f'or not available in the current environment: "{full}"'
            )
        out.append(full)
    return out
