"""What is said of many things of one kind."""

from __future__ import annotations

from collector.seldom import Seldom


def test_the_first_is_said_at_once_and_then_one_a_minute_with_the_number_of_the_others() -> None:
    now = 5.0
    seldom = Seldom(60.0, lambda: now)
    assert [seldom.turn() for _ in range(4)] == [0, None, None, None]
    now = 64.9
    assert seldom.turn() is None
    now = 65.0
    assert [seldom.turn() for _ in range(2)] == [4, None]
    now = 200.0
    assert seldom.turn() == 1
    now = 300.0
    assert seldom.turn() == 0
