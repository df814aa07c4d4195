"""What log drivers count is told as it is at every reading, though little is read of a quiet container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from collector.container import Container, LogSource
from logdrivers.block import Block, Encoding, Stream
from logdrivers.delivery_state import OLDER_FIELDS, STATE_FIELDS, STATE_NAME, DeliveryState
from logdrivers.driver import Info
from logdrivers.journal import Mark
from logdrivers.journals.rotated_reader import RotatedReader
from logdrivers.registry import get
from logdrivers.source.rate_limit import SOURCE_STATE_NAME, DropCounter
from logdrivers.statefile import StateFile
from runtime.shim.gap import mark_gap_in_journal
from taffrail import log_counts
from taffrail.log_counts import GapCounts, LogCounts

ID = "ab" * 32


def container(directory: Path, driver: str) -> Container:
    return Container(ID, "web", engine="taffrail", log=LogSource(driver, directory=str(directory)))


def counted(counts: LogCounts, one: Container) -> tuple[int, int, int, dict[str, int]]:
    ((_, found),) = counts.read([one])
    return found.written, found.delivered, found.held, found.dropped


def block(lines: int) -> Block:
    return Block(b"x\n" * lines, Encoding.LINES, Stream.STDOUT, 1, 1, lines)


@pytest.mark.parametrize("settled", [True, False])
def test_each_change_of_a_delivery_is_told(
    tmp_path: Path, settled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if settled:  # as if the directory had been left alone for long
        monkeypatch.setattr(log_counts, "_SETTLED_NS", -(10**18))
    counts, one = LogCounts(tmp_path / "plugin"), container(tmp_path, "gelf")
    state = StateFile(tmp_path / STATE_NAME, STATE_FIELDS, OLDER_FIELDS)
    assert list(counts.read([one])) == []  # nothing written yet
    known = DeliveryState(written=5, delivered=3)
    state.write(*known.values())  # by mapped memory: the file's time does not tell
    assert counted(counts, one) == (5, 3, 2, {})
    known.drop("sink", 2)
    state.write(*known.values())
    assert counted(counts, one) == counted(counts, one) == (5, 3, 0, {"sink": 2})
    state.close()


def test_a_file_that_comes_later_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_counts, "_SETTLED_NS", -(10**18))
    os.utime(tmp_path, (1, 1))
    counts, one = LogCounts(tmp_path / "plugin"), container(tmp_path, "gelf")
    state = StateFile(tmp_path / STATE_NAME, STATE_FIELDS, OLDER_FIELDS)
    state.write(*DeliveryState(written=5, delivered=5).values())
    assert counted(counts, one) == (5, 5, 0, {})
    drops = DropCounter(tmp_path / SOURCE_STATE_NAME)
    drops.count(Stream.STDOUT, 4, 0, 9)
    assert counted(counts, one) == (9, 5, 0, {"rate_limit": 4})
    drops.count(Stream.STDOUT, 2, 9, 12)
    assert counted(counts, one) == (11, 5, 0, {"rate_limit": 6})
    (tmp_path / SOURCE_STATE_NAME).unlink()
    assert counted(counts, one) == (5, 5, 0, {})
    drops.close()
    state.close()


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_lines_kept_on_the_host_are_counted_over_rotations_without_an_open_file(
    tmp_path: Path, driver: str
) -> None:
    options = {"max-size": "10k", "max-file": "2"}
    one = Container(
        ID, "web", engine="taffrail", log=LogSource(driver, directory=str(tmp_path), options=options)
    )
    counts = LogCounts(tmp_path / "plugin")
    journal = get(driver).journal(Info(ID, "/web", "", "", (), 0, tmp_path, options=options))
    written = 0
    for lines in (1, 1, 700, 0, 700, 3):
        if lines:
            journal.append(block(lines), Mark(2 * (written + lines), 0))
            written += lines
        assert counted(counts, one) == (written, written, 0, {})
        reader = counts._logs[str(tmp_path)]._reader
        assert isinstance(reader, RotatedReader)
        assert not reader._files._open
    journal.close()


def test_a_broken_file_is_logged_and_costs_the_others_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    for directory in (good, bad):
        directory.mkdir()
    (bad / STATE_NAME).write_bytes(b"no such thing" * 100)
    state = StateFile(good / STATE_NAME, STATE_FIELDS)
    state.write(*DeliveryState(written=1).values())
    state.close()
    counts = LogCounts(tmp_path / "plugin")
    for _ in range(2):
        found = list(counts.read([container(bad, "gelf"), container(good, "gelf")]))
        assert [one.log.directory for one, _ in found] == [str(good)]
    assert caplog.text.count("cannot read the log counters of web") == 2


def test_gaps_are_counted_when_they_come(tmp_path: Path) -> None:
    counts, one = GapCounts(), container(tmp_path / "log", "json-file")
    assert list(counts.read([one])) == [(one, 0)]
    info = Info(ID, "/web", "", "", (), 0, tmp_path / "log")
    for number in (1, 2):
        mark_gap_in_journal("json-file", info, False, number)
        assert list(counts.read([one])) == [(one, number)]
    assert list(counts.read([])) == []
