"""Requests on disk: order, budget, restarts, and the equation."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporters.remote_write.batches import Batch
from exporters.remote_write.queue import Queue


def batch(number: int, size: int = 10) -> Batch:
    return Batch(bytes([number]) * size, number, 1000 + number)


def holds(queue: Queue) -> bool:
    return queue.taken == queue.delivered + queue.held + sum(queue.dropped.values())


def test_oldest_first_and_every_sample_accounted_for(tmp_path: Path) -> None:
    queue = Queue(tmp_path, 1000)
    for number in (1, 2, 3):
        queue.append(batch(number))
    entry, body = queue.first() or (None, b"")
    assert entry is not None
    assert (entry.samples, entry.time_ms, body) == (1, 1001, b"\x01" * 10)
    assert queue.oldest_ms == 1001
    queue.done(entry)
    entry, _ = queue.first() or (None, b"")
    assert entry is not None
    queue.drop(entry, "rejected")
    assert (queue.taken, queue.delivered, queue.held, queue.dropped) == (6, 1, 3, {"rejected": 2})
    assert holds(queue)
    assert len(list(tmp_path.iterdir())) == len(queue) == 1


def test_an_earlier_runs_requests_are_sent_first(tmp_path: Path) -> None:
    queue = Queue(tmp_path, 1000)
    for number in range(1, 12):
        queue.append(batch(number))
    (tmp_path / "fresh").write_bytes(b"half")
    again = Queue(tmp_path, 1000)
    assert (again.taken, again.held, again.bytes) == (66, 66, 110)
    again.append(batch(12))
    order = []
    while first := again.first():
        order.append(first[0].samples)
        again.done(first[0])
    assert order == list(range(1, 13))
    assert not list(tmp_path.iterdir())
    assert holds(again)


def test_over_the_budget_the_oldest_goes_but_not_the_one_being_sent(tmp_path: Path) -> None:
    queue = Queue(tmp_path, 35)
    for number in (1, 2, 3):
        queue.append(batch(number))
    entry, _ = queue.first() or (None, b"")
    assert entry is not None
    queue.append(batch(4))
    assert queue.dropped == {"queue_full": 2}
    assert (queue.held, queue.bytes) == (8, 30)
    queue.done(entry)
    assert [int(path.name.split("-")[1]) for path in sorted(tmp_path.iterdir())] == [3, 4]
    smaller = Queue(tmp_path, 15)
    assert smaller.dropped == {"queue_full": 3}
    assert holds(smaller)
    assert holds(queue)


def test_a_disk_that_takes_nothing_and_files_that_are_gone_are_counted(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "q", 1000)
    queue.append(batch(1))
    queue.append(batch(2))
    queue.append(batch(3))
    first, second, _ = sorted((tmp_path / "q").iterdir())
    first.unlink()
    second.write_bytes(b"")
    entry, _ = queue.first() or (None, b"")
    assert entry is not None
    assert entry.samples == 3
    assert queue.dropped == {"damaged": 3}
    queue.done(entry)
    (tmp_path / "q").rmdir()
    queue.append(batch(4))
    assert queue.dropped == {"damaged": 3, "disk": 4}
    assert holds(queue)


def test_a_request_that_cannot_be_removed_is_settled_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    queue = Queue(tmp_path, 1000)
    queue.append(batch(1))
    entry, _ = queue.first() or (None, b"")
    assert entry is not None

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    queue.done(entry)
    assert (queue.delivered, queue.held, len(queue)) == (1, 0, 0)
    assert "cannot remove" in caplog.text
