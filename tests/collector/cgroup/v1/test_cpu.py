import pytest

from collector.cgroup.v1.cpu import parse_percpu, parse_throttling, parse_user_system


def test_ticks_become_seconds() -> None:
    assert parse_user_system(b"user 10327\nsystem 2045\n") == (103.27, 20.45)


def test_nanoseconds_of_each_cpu() -> None:
    assert parse_percpu(b"6345678900 6000000000 \n") == (6.3456789, 6.0)


def test_throttling_of_old_and_new_kernels() -> None:
    old = b"nr_periods 500\nnr_throttled 120\nthrottled_time 3600000000\n"
    assert parse_throttling(old) == (500, 120, 3.6, None, None)
    assert parse_throttling(old + b"nr_bursts 3\nburst_time 500000000\n") == (500, 120, 3.6, 3, 0.5)


def test_text_is_refused() -> None:
    with pytest.raises(ValueError, match="expected lines of a key and a number"):
        parse_user_system(b"user")
