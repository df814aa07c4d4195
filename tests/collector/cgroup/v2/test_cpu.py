import pytest

from collector.cgroup.v2.cpu import parse_max, parse_stat, shares_as_asked, shares_of_weight


def test_all_keys_and_without_the_controller() -> None:
    short = b"usage_usec 12\nuser_usec 7\nsystem_usec 5\n"
    full = short + (
        b"core_sched.force_idle_usec 0\nnr_periods 4\nnr_throttled 3\nthrottled_usec 2\nnr_bursts 1\nburst_usec 9\n"
    )
    assert parse_stat(full) == [12, 7, 5, 4, 3, 2, 1, 9]
    assert parse_stat(short) == [12, 7, 5, None, None, None, None, None]


def test_quota_and_period() -> None:
    assert parse_max(b"50000 100000\n") == (50000, 100000)
    assert parse_max(b"max 100000\n") == (None, 100000)
    with pytest.raises(ValueError, match="b'max': expected a quota and a period"):
        parse_max(b"max")


@pytest.mark.parametrize(("weight", "shares"), [(1, 2), (10000, 262144), (39, 998)])
def test_weight_to_shares(weight: int, shares: int) -> None:
    assert shares_of_weight(weight) == shares


@pytest.mark.parametrize(
    ("weight", "asked", "told"),
    [
        (39, 1024, 1024),  # runtimes that convert linearly
        (100, 1024, 1024),  # newer ones
        (20, 512, 512),
        (59, 512, 512),
        (1, 2, 2),
        (10000, 262144, 262144),
        (300, 512, 7840),  # changed by somebody else: what its weight says
    ],
)
def test_shares_are_told_as_they_were_asked_for(weight: int, asked: int, told: int) -> None:
    assert shares_as_asked(shares_of_weight(weight), asked) == told
