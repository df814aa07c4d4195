"""What comes faster than a container's rate limit: whole lines dropped, counted, and said in the log."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from logdrivers.source.rate_limit import SOURCE_STATE_NAME, Dropped
from tests.logdrivers.source.copier_case import ERR, MARKER, OUT, Case, a_case


@pytest.fixture
def limited(tmp_path: Path, clock: list[float]) -> Callable[..., Case]:
    return lambda **more: a_case(tmp_path, {"rate-limit": "64k", **more})


def test_over_its_rate_a_container_loses_whole_lines_and_a_marker_says_how_many(
    limited: Callable[..., Case], clock: list[float]
) -> None:
    case = limited()
    line = b"y" * 1023 + b"\n"
    case.write(OUT, line * 100)
    case.copier.pump(OUT, 1)
    assert case.texts(OUT) == [line] * 64
    assert case.copier.due == clock[0] + 1
    clock[0] += 0.5
    case.write(OUT, line * 10)  # none passes until the bucket is full again
    case.copier.pump(OUT, 2)
    assert len(case.texts(OUT)) == 64
    clock[0] += 0.5
    case.copier.pump_due(3)
    said = b"taffrail: 46 lines (47104 bytes) dropped: over rate-limit 65536 bytes/s\n"
    assert case.texts(OUT) == [*[line] * 64, said]
    case.write(OUT, line)
    case.copier.pump(OUT, 4)
    assert case.texts(OUT) == [*[line] * 64, said, line]
    assert case.check() == Dropped(46, 46 * 1024)
    case.copier.close()


def test_both_streams_share_the_rate(limited: Callable[..., Case], clock: list[float]) -> None:
    case = limited()
    case.write(OUT, b"y" * 65_535 + b"\n")
    case.copier.pump(OUT, 1)
    case.write(ERR, b"z\n")
    case.copier.pump(ERR, 1)
    case.copier.pump(ERR, 2, eof=True)
    assert MARKER.fullmatch(case.texts(ERR)[0])
    assert case.check() == Dropped(1, 2)
    case.copier.close()


def test_a_line_in_pieces_passes_or_is_dropped_whole(
    limited: Callable[..., Case], clock: list[float]
) -> None:
    case = limited()
    long = b"l" * 100_000
    case.write(OUT, long)  # more than a burst: it passes because nothing else did
    case.copier.pump(OUT, 1)
    case.write(OUT, long + b"\n")
    case.copier.pump(OUT, 2)
    assert b"".join(case.texts(OUT)) == long + long + b"\n"
    case.write(OUT, long)
    case.copier.pump(OUT, 3)
    clock[0] += 60
    case.copier.pump_due(4)  # a marker in the middle of the line
    case.successor()
    case.write(OUT, b"its end\nnext\n")
    case.copier.pump(OUT, 5)
    case.copier.pump(OUT, 6, eof=True)
    assert b"its end" not in b"".join(case.texts(OUT))
    assert case.texts(OUT)[-1] == b"next\n"
    assert case.check() == Dropped(1, 100_008)
    case.copier.close()


def test_a_dropped_message_is_one_line(limited: Callable[..., Case], clock: list[float]) -> None:
    case = limited(multiline="indented")
    case.write(OUT, b"y" * 65_000 + b"\na\n" + b" 1\n" * 300 + b"b\n")
    case.copier.pump(OUT, 1)
    case.copier.pump(OUT, 2, eof=True)
    assert case.check() == Dropped(2, 904)
    case.copier.close()


def test_a_disk_that_refuses_the_marker_gets_it_later(
    limited: Callable[..., Case], clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = limited()
    case.write(OUT, b"y\n" * 40_000)
    case.copier.pump(OUT, 1)
    clock[0] += 5

    def refuse(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        with pytest.raises(OSError, match="No space"):
            case.copier.pump_due(2)
    case.copier.reopen()
    case.copier.pump(OUT, 3, eof=True)
    assert case.check() == Dropped(40_000 - 32_768, 2 * (40_000 - 32_768))
    case.copier.close()


def test_a_container_whose_writes_wait_loses_nothing(tmp_path: Path, clock: list[float]) -> None:
    case = a_case(tmp_path, {"rate-limit": "64k", "rate-limit-policy": "wait"})
    assert case.copier.allowance() == 65_536
    case.copier.spend(65_536)
    assert case.copier.allowance() == 0
    assert case.copier.pause_seconds() == pytest.approx(0.1)
    clock[0] += 0.25
    assert case.copier.allowance() == 16_384
    assert not (case.info.directory / SOURCE_STATE_NAME).exists()
    case.copier.close()


def test_markers_are_few_and_none_waits_long(limited: Callable[..., Case], clock: list[float]) -> None:
    case = limited()
    case.write(OUT, b"l" * 5_000_000 + b"\nx\n")  # passes, and nothing else for more than a minute
    case.copier.pump(OUT, 1)
    for _ in range(30):
        clock[0] += 1
        case.write(OUT, b"y\n")
        case.copier.pump(OUT, 2)
        case.copier.pump_due(2)
    assert [bool(MARKER.fullmatch(text)) for text in case.texts(OUT)].count(True) == 2
    case.copier.pump(OUT, 3, eof=True)
    assert case.check() == Dropped(31, 62)
    case.copier.close()


def test_the_rest_of_a_dropped_line_leaves_no_marker_for_each_read(
    limited: Callable[..., Case], clock: list[float]
) -> None:
    case = limited()
    case.write(OUT, b"y" * 65_535 + b"\n" + b"z" * 20_000)
    case.copier.pump(OUT, 1)
    clock[0] += 5
    case.copier.pump_due(1)
    for _ in range(300):
        clock[0] += 0.01
        case.write(OUT, b"z" * 20_000)
        case.copier.pump(OUT, 2)
        case.copier.pump_due(2)
    case.write(OUT, b"\nnext\n")
    case.copier.pump(OUT, 3, eof=True)
    assert case.texts(OUT)[-1] == b"next\n"
    assert [bool(MARKER.fullmatch(text)) for text in case.texts(OUT)].count(True) <= 5
    assert case.check() == Dropped(1, 301 * 20_000 + 1)
    case.copier.close()
