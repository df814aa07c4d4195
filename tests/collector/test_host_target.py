"""The host's CPU time and when it was read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from collector.cgroup.layout import Layout
from collector.history import History
from collector.host_target import HostTarget
from collector.roots import Roots
from collector.sample import Cpu, Sample

SECOND = 10**9
BASE = 1_760_000_000 * SECOND

#: Counters of CPU time, the clock when the pass began, and how long it was on its way to them.
Read = Callable[[float, float, float], float]


@pytest.fixture
def host() -> Iterator[HostTarget]:
    roots = Roots()
    made = HostTarget(Layout.read(roots), roots, History(), 1 << 30)
    yield made
    made.close()


def reads(host: HostTarget) -> Read:
    """The answer tells the rate since the reading before: CPUs' seconds a second, over all CPUs' one."""
    online = host.cpu().online
    counted = SimpleNamespace(seconds=0.0)
    host._cgroup.close()
    host._cgroup = SimpleNamespace(  # type: ignore[assignment]
        read=lambda now_ns, previous: Sample(now_ns, Cpu(counted.seconds)), close=lambda: None
    )

    def read(busy: float, second: float, late: float) -> float:
        counted.seconds = 1000.0 + busy * online
        host.read(BASE + round(second * SECOND), time.monotonic_ns() - round(late * SECOND))
        points = host.history
        if len(points) < 2:
            return 0.0
        span = (points[-1].time_ns - points[-2].time_ns) / SECOND
        return (points[-1].cpu_seconds - points[-2].cpu_seconds) / span / online

    return read


def test_a_pass_that_had_to_wait_does_not_show_more_than_all_cpus(host: HostTarget) -> None:
    read = reads(host)
    read(0.0, 0.0, 0.0)
    assert read(1.25, 1.0, 0.25) == pytest.approx(1.0, abs=1e-6)  # busy throughout, read a quarter late
    assert read(2.0, 2.0, 0.0) == pytest.approx(1.0, abs=1e-6)
    assert read(2.5, 3.0, 0.25) == pytest.approx(0.5)  # the time of the pass where nothing speaks against it


def test_a_growth_that_no_wait_explains_does_not_move_the_time(host: HostTarget) -> None:
    read = reads(host)
    read(0.0, 0.0, 0.0)
    read(500.0, 1.0, 0.0)  # a counter that jumped
    assert host.latest is not None
    assert BASE + SECOND <= host.latest.time_ns < BASE + 2 * SECOND
    read(500.5, 2.0, 0.0)
    assert host.latest.time_ns == BASE + 2 * SECOND
    read(501.0, -3600.0, 0.0)  # the clock was set back
    assert host.latest.time_ns == BASE - 3600 * SECOND
