"""Long lines and messages of several lines: what the copier keeps back, for how long, and what comes out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.logdrivers.source.copier_case import DRIVERS, ERR, MIB, OUT, a_case


@pytest.mark.parametrize("size", [1, 16383, 16384, 16385, 32768, MIB - 1, MIB, MIB + 1])
@pytest.mark.parametrize("driver", DRIVERS)
def test_lines_of_any_length_arrive_whole_up_to_a_mebibyte(tmp_path: Path, driver: str, size: int) -> None:
    case = a_case(tmp_path, {"max-line-size": "1m"}, driver)
    case.write(OUT, b"before\n" + b"x" * size)
    case.copier.pump(OUT, 1)
    case.write(OUT, b"\nafter\n")
    case.copier.pump(OUT, 2)
    case.check()
    lengths = [len(text) for text in case.texts(OUT)]
    assert lengths == ([7, size + 1, 6] if size < MIB else [7, MIB, size - MIB + 1, 6])
    case.copier.close()


def test_bytes_of_an_unfinished_line_are_looked_at_once(tmp_path: Path) -> None:
    case = a_case(tmp_path, {"max-line-size": "1m"})
    spool = case.copier.spools[OUT]
    read: list[int] = []
    real = spool.read

    def counted(begin: int, end: int) -> bytes:
        read.append(end - begin)
        return real(begin, end)

    spool.read = counted  # type: ignore[method-assign]
    for _ in range(100):
        case.write(OUT, b"x" * 1000)
        case.copier.pump(OUT, 1)
    assert sum(read) == 100_000
    case.write(OUT, b"\n")
    case.copier.pump(OUT, 1)
    assert [len(text) for text in case.texts(OUT)] == [100_001]
    case.copier.close()


def test_a_message_waits_for_its_end_and_no_longer_than_asked(tmp_path: Path, clock: list[float]) -> None:
    case = a_case(tmp_path, {"multiline": "indented", "multiline-timeout": "2s"})
    assert case.copier.due is None
    case.write(OUT, b"a\nb\n")
    case.copier.pump(OUT, 1)
    assert case.texts(OUT) == [b"a\n"]
    assert case.copier.due == clock[0] + 2
    clock[0] += 1.5
    case.write(OUT, b" 1\n")
    case.copier.pump(OUT, 2)
    assert case.copier.due == clock[0] + 2
    clock[0] += 1.9
    case.write(OUT, b"unfin")
    case.copier.pump(OUT, 3)
    case.copier.pump_due(3)
    assert case.texts(OUT) == [b"a\n"]
    clock[0] += 0.1
    case.copier.pump_due(4)
    assert case.texts(OUT) == [b"a\n", b"b\n 1\n"]
    assert case.copier.due is None
    case.write(OUT, b"ished\n")
    case.copier.pump(OUT, 5)
    case.copier.pump(OUT, 6, eof=True)
    assert case.texts(OUT) == [b"a\n", b"b\n 1\n", b"unfinished\n"]
    case.check()
    case.copier.close()


def test_lines_that_waited_keep_the_time_they_were_read(tmp_path: Path, clock: list[float]) -> None:
    case = a_case(tmp_path, {"multiline": "indented"})
    second = 1_000_000_000
    for number, text in enumerate((b"a\n", b"b\n 1\n", b"c\nd\n", b"e\n"), 1):
        case.write(OUT, text)
        case.copier.pump(OUT, number * second)
    case.copier.pump(OUT, 9 * second, eof=True)
    assert [(block.first_ns // second, block.data) for block in case.blocks()] == [
        (1, b"a\n"),
        (2, b"b\n 1\n"),
        (3, b"c\n"),
        (3, b"d\n"),
        (4, b"e\n"),
    ]
    case.copier.close()


def test_streams_are_joined_each_for_itself(tmp_path: Path, clock: list[float]) -> None:
    case = a_case(tmp_path, {"multiline": "indented"})
    for stream, text in ((OUT, b"a\n"), (ERR, b"b\n"), (OUT, b" 1\n"), (ERR, b" 2\n")):
        case.write(stream, text)
        case.copier.pump(stream, 1)
    clock[0] += 1
    case.copier.pump_due(2)
    assert (case.texts(OUT), case.texts(ERR)) == ([b"a\n 1\n"], [b"b\n 2\n"])
    case.copier.close()
