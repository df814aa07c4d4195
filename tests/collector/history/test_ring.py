import pytest

from collector.history import History, Point
from collector.sample import BlockIO, Cpu, Interface, Memory, Sample


def at(second: int) -> Sample:
    return Sample(
        second * 10**9,
        Cpu(second / 2, throttled_seconds=0.25),
        Memory(100 + second, 50),
        (BlockIO("8:0", 1, 2, 3, 4),),
        5,
        interfaces=(Interface("eth0", 6, 0, 0, 0, 7, 0, 0, 0),),
    )


def test_the_newest_points_stay_in_order() -> None:
    history = History(3)
    assert list(history) == []
    for second in range(5):
        history.append(at(second))
    assert [point.time_ns // 10**9 for point in history] == [2, 3, 4]
    assert history[-1] == Point(4 * 10**9, 2.0, 104, 50, 6, 7, 1, 2, 5, 250_000_000)
    assert history[0:2] == [history[0], history[1]]
    with pytest.raises(IndexError, match="expected one of 3"):
        history[3]


def test_what_the_kernel_does_not_have_is_zero() -> None:
    history = History(1)
    history.append(Sample(1))
    assert history[0] == Point(1, 0.0, 0, 0, 0, 0, 0, 0, 0, 0)


def test_a_ring_grows_with_its_use_and_keeps_the_order() -> None:
    history = History(600)
    for second in range(700):
        history.append(at(second))
        first = max(0, second - 599)
        assert (len(history), history[0].time_ns, history[-1].time_ns) == (
            second - first + 1,
            first * 10**9,
            second * 10**9,
        )
    assert [point.time_ns // 10**9 for point in history] == list(range(100, 700))


def test_what_came_since_a_position() -> None:
    history = History(3)
    for second in range(5):
        history.append(at(second))
    assert [point.time_ns // 10**9 for point in history.after(4)] == [4]
    assert [point.time_ns // 10**9 for point in history.after(0)] == [2, 3, 4]  # as far as it reaches
    assert history.after(history.appended) == []


def test_a_new_run_is_marked() -> None:
    history = History(3)
    history.append(at(1))
    history.started_anew()
    history.append(at(2))
    assert [point.starts for point in history] == [0, 1]


def test_a_container_of_seconds_takes_little_room() -> None:
    history = History()
    for second in range(3):
        history.append(at(second))
    assert len(history._rows) < 2000
