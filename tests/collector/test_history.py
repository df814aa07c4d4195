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
