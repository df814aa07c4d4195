"""The formats of /proc/PID."""

from __future__ import annotations

import pytest

from collector.processes.procfs import (
    PAGE,
    TICK,
    parse_cmdline,
    parse_io,
    parse_stat,
    parse_statm,
    parse_uid,
)

STAT = b"%s S 7 9 9 0 -1 %d 5 0 0 0 30 12 0 0 20 0 6 0 4711 1000 25 18446744073709551615 1 1 0"


def test_stat_of_a_process() -> None:
    stat = parse_stat(STAT % (b"42 (nginx)", 4194304))
    assert (stat.name, stat.state, stat.parent, stat.threads, stat.start_ticks) == ("nginx", "S", 7, 6, 4711)
    assert stat.cpu_seconds == pytest.approx(42 * TICK)
    assert not stat.kernel_thread
    assert parse_stat(STAT % (b"2 (kthreadd)", 0x00208040)).kernel_thread


@pytest.mark.parametrize("name", [") S 1 (", "a b", "((", "))", "x\ny", "\x1b[2J"])
def test_a_name_cannot_shift_the_fields(name: str) -> None:
    stat = parse_stat(STAT % (b"42 (" + name.encode() + b")", 0))
    assert (stat.name, stat.parent, stat.start_ticks) == (name, 7, 4711)


@pytest.mark.parametrize("data", [b"", b"42 (nginx", b"42 (nginx) S 1 2", b"42 nginx S"])
def test_stat_cut_off_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(ValueError, match="expected 'pid"):
        parse_stat(data)


def test_statm_is_in_pages() -> None:
    assert parse_statm(b"100 30 20 1 0 9 0\n") == (100 * PAGE, 30 * PAGE, 20 * PAGE)
    with pytest.raises(ValueError, match="statm"):
        parse_statm(b"100")


def test_io_is_what_reached_storage() -> None:
    data = b"rchar: 5\nwchar: 6\nsyscr: 1\nsyscw: 1\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 0\n"
    assert parse_io(data) == (4096, 8192, 5, 6)
    with pytest.raises(ValueError, match="read_bytes"):
        parse_io(b"rchar: 5\n")


def test_cmdline() -> None:
    assert parse_cmdline(b"sh\0-c\0echo a b\0") == ("sh", "-c", "echo a b")
    assert parse_cmdline(b"nginx: worker process\0\0\0\0") == ("nginx: worker process",)
    assert parse_cmdline(b"a\0\0b\0") == ("a", "", "b")
    assert parse_cmdline(b"") == ()
    assert parse_cmdline(b"\xff\0") == ("\ufffd",)


def test_uid_is_the_effective_one() -> None:
    assert parse_uid(b"Name:\tx\nUid:\t1000\t33\t0\t33\nGid:\t0\t0\t0\t0\n") == 33
    with pytest.raises(ValueError, match="Uid"):
        parse_uid(b"Name:\tx\n")
