"""The IP addresses of a process's network namespace, from procfs: no engine is asked, no namespace entered.

Read when somebody asks (service discovery), never in the sampling pass.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

__all__ = ["local_addresses", "parse_fib_trie", "parse_if_inet6"]

_ENTRY = re.compile(r"\|-- (\d+\.\d+\.\d+\.\d+)\n((?: +/\d+ \w+ \w+\n?)+)")
_GLOBAL = "00"


def local_addresses(proc: Path, pid: int) -> tuple[str, ...]:
    """Addresses others can reach it by: IPv4 in ascending order, then global IPv6; loopback and link-local are not.

    Raises OSError if the process has gone.
    """
    net = proc / str(pid) / "net"
    found = parse_fib_trie((net / "fib_trie").read_text(encoding="ascii"))
    try:
        found += parse_if_inet6((net / "if_inet6").read_text(encoding="ascii", errors="replace"))
    except FileNotFoundError:  # a kernel without IPv6
        return found
    return found


def parse_fib_trie(text: str) -> tuple[str, ...]:
    """The local IPv4 addresses of ``/proc/PID/net/fib_trie``, which has every table's leaves."""
    local = {
        ipaddress.IPv4Address(address)
        for address, routes in _ENTRY.findall(text)
        if "/32 host LOCAL" in routes
    }
    return tuple(
        str(address) for address in sorted(local) if not (address.is_loopback or address.is_link_local)
    )


def parse_if_inet6(text: str) -> tuple[str, ...]:
    """The addresses of global scope of ``/proc/PID/net/if_inet6``: address, index, prefix, scope, flags, name."""
    rows = [line.split() for line in text.splitlines()]
    found = [ipaddress.IPv6Address(int(row[0], 16)) for row in rows if len(row) == 6 and row[3] == _GLOBAL]
    return tuple(str(address) for address in sorted(found))
