"""Sockets in use, as the kernel sums them up."""

from __future__ import annotations

from pathlib import Path

import pytest

from collector.sockstat import parse_sockstat, tcp_in_use


def test_both_files_together() -> None:
    data = b"sockets: used 369\nTCP: inuse 3 orphan 0 tw 461 alloc 3 mem 0\nUDP: inuse 9 mem 314\n"
    found = parse_sockstat(data + b"TCP6: inuse 2\nUDP6: inuse 0\n")
    assert found["sockets"] == {"used": 369}
    assert found["UDP"] == {"inuse": 9, "mem": 314}
    assert found["UDP6"] == {"inuse": 0}
    assert tcp_in_use(found) == 3 + 461 + 2
    assert tcp_in_use(parse_sockstat(data)) == 464


def test_the_kernels_own() -> None:
    found = parse_sockstat(Path("/proc/self/net/sockstat").read_bytes())
    assert found["TCP"].keys() >= {"inuse", "orphan", "tw", "alloc", "mem"}
    assert tcp_in_use(found) >= found["TCP"]["inuse"]


@pytest.mark.parametrize("data", [b"TCP inuse 3\n", b"TCP: inuse\n", b"TCP: inuse many\n"])
def test_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"sockstat|invalid literal"):
        parse_sockstat(data)
