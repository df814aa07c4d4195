"""Sockets in use by protocol, as the kernel sums them up: ``/proc/net/sockstat`` and ``sockstat6``.

Every network namespace has the two files; which numbers are wanted is left to those who read them.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["parse_sockstat", "tcp_in_use"]


def parse_sockstat(data: bytes) -> dict[str, dict[str, int]]:
    """Fields by protocol, as ``{"TCP": {"inuse": 3, "tw": 1, …}}``; the files' lines may be put together.

    Raises ValueError on a line that is not a protocol with pairs of names and numbers.
    """
    found: dict[str, dict[str, int]] = {}
    for line in data.decode().splitlines():
        protocol, colon, rest = line.partition(":")
        words = rest.split()
        if not colon or len(words) % 2:
            raise ValueError(f"sockstat line {line[:80]!r}: expected 'PROTOCOL: name number …'")
        found[protocol] = {name: int(value) for name, value in zip(words[::2], words[1::2], strict=True)}
    return found


def tcp_in_use(found: Mapping[str, Mapping[str, int]]) -> int:
    """TCP sockets over both families, those in TIME_WAIT too (the first file counts them for both)."""
    four, six = found.get("TCP", {}), found.get("TCP6", {})
    return four.get("inuse", 0) + four.get("tw", 0) + six.get("inuse", 0)
