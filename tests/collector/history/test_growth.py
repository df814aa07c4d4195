"""Growth between rows: what a container's first moments count for."""

from __future__ import annotations

from typing import Any

import pytest

from collector.history.growth import growth
from collector.history.ring import History
from collector.history.rows import as_array
from collector.history.steps import Follower, make_rows

from .conftest import BASE, sample


@pytest.mark.parametrize(("lived_on", "spans"), [(True, [1.0, 10.0]), (False, [0.05])])
def test_a_first_step_that_ends_at_once_is_no_peak(lived_on: bool, spans: list[float]) -> None:
    """Making it took 0.2 s of CPU, which are charged to the 50 ms it had in its first step."""
    ring = History(10)
    follower = Follower(1)
    ring.append(sample(9.99, 0.2))
    _, points = ring.numbered_after(0)
    rows: list[Any] = follower.first_rows(points, 0, round((BASE + 9.94) * 1e6))
    if lived_on:
        ring.append(sample(19.99, 2.7))
        rows += follower.rows(ring.numbered_after(1)[1], 0)
    found = growth(as_array(make_rows(rows)))
    assert list(found.span_us / 1e6) == pytest.approx(spans)
    assert list(found.grown["cpu_us"] / 1e6) == pytest.approx([0.2, 2.5][: len(spans)])
