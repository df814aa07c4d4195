import pytest

from collector.cgroup.v1.memory import parse_limit, parse_oom_kills, parse_stat


def test_totals_are_of_the_hierarchy_faults_also_of_the_cgroup() -> None:
    own = b"cache 1\nrss 2\nmapped_file 3\nswap 4\npgfault 5\npgmajfault 6\ninactive_file 7\nactive_file 8\n"
    total = b"".join(b"total_" + line.replace(b" ", b" 10") + b"\n" for line in own.splitlines())
    absent = [None] * 4
    assert parse_stat(own + total) == [102, 101, 103, 104, 108, 107, 105, 106, 5, 6, *absent]


def test_dirty_pages_and_refaults_are_of_the_hierarchy() -> None:
    own = b"dirty 1\nwriteback 2\nworkingset_refault_anon 3\nworkingset_refault_file 4\n"
    total = b"".join(b"total_" + line.replace(b" ", b" 10") + b"\n" for line in own.splitlines())
    assert parse_stat(own + total)[10:] == [101, 102, 104, 103]


@pytest.mark.parametrize(
    ("data", "limit"),
    [
        (b"9223372036854771712\n", None),
        (b"-1\n", None),
        (b"209715200\n", 209715200),
        (b"0\n", 0),
    ],
)
def test_a_limit_near_the_largest_number_is_none(data: bytes, limit: int | None) -> None:
    assert parse_limit(data) == limit


def test_oom_kills_are_absent_before_linux_4_13() -> None:
    assert parse_oom_kills(b"oom_kill_disable 0\nunder_oom 0\noom_kill 3\n") == 3
    assert parse_oom_kills(b"oom_kill_disable 0\nunder_oom 0\n") is None
