from collector.cgroup.v2.memory import STAT_KEYS, parse_events, parse_stat


def test_stat_of_a_kernel_without_the_newest_keys() -> None:
    data = b"anon 1\nfile 2\nfile_mapped 3\ninactive_file 4\nactive_file 5\npgfault 6\npgmajfault 7\n"
    values = parse_stat(data)
    assert values[:8] == [1, 2, 3, 5, 4, 6, 7, None]
    assert values[8:] == [None] * len(STAT_KEYS)


def test_events() -> None:
    data = b"low 3\nhigh 4\nmax 7\noom 2\noom_kill 1\n"
    assert parse_events(data) == [4, 7, 1, 3, 2, None]
    assert parse_events(data + b"oom_group_kill 5\n") == [4, 7, 1, 3, 2, 5]
