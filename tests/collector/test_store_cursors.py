"""Cursors of the store: where each begins, what retention takes before it, what is counted as lost."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from store_blocks import (
    balance,
    lines_block,
    numbered,
    open_store,
    read_all,
    source,
)


def test_a_new_cursor_starts_with_the_oldest_line_or_with_the_next(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.append(source(), lines_block([b"old"]))
    late = store.cursor("late", at_end=True)
    store.append(source(), lines_block([b"new"]))
    assert [s.block.data for s in late.next().blocks] == [b"new\n"]
    assert late.lag() == (1, 4)
    assert store.cursor("early").lag() == (2, 8)
    store.close()


def test_a_batch_comes_again_until_it_is_committed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    cursor = store.cursor("es")
    assert cursor.next().blocks == []
    store.append(source(), lines_block([b"one"]))
    first, second = cursor.next(), cursor.next()
    assert first.blocks == second.blocks
    cursor.commit(first.token)
    assert cursor.next().blocks == []
    store.close()
    store = open_store(tmp_path)
    assert store.cursor("es").next().blocks == []
    with pytest.raises(TypeError, match="expected the token of a batch, got str"):
        store.cursor("es").commit("x")
    store.close()


def test_retention_by_size_counts_what_each_cursor_lost(tmp_path: Path) -> None:
    store = open_store(tmp_path, max_bytes=100_000, segment_bytes=1 << 20)
    fast, slow = store.cursor("fast"), store.cursor("slow")
    rng = random.Random(1)
    got_fast: dict[tuple[str, int], bytes] = {}
    for number in range(300):
        store.append(source(), lines_block([rng.randbytes(1000).replace(b"\n", b"_")]))
        if number % 10 == 0:
            batch = fast.next()
            got_fast |= numbered(list(batch.blocks))
            fast.commit(batch.token)
            store.maintain()
    store.maintain()
    got_fast |= numbered(read_all(store, "fast"))
    batch = slow.next(1 << 30)
    counters = store.counters()
    assert len(got_fast) == 300
    assert counters.disk_bytes <= 100_000
    assert counters.removed_lines["size"] > 0
    assert batch.lost_lines == counters.cursors["slow"].lost_lines == counters.removed_lines["size"]
    assert sum(stored.block.lines for stored in batch.blocks) == 300 - batch.lost_lines
    assert counters.cursors["fast"].lost_lines == 0
    balance(store)
    slow.commit(batch.token)
    assert slow.next().lost_lines == 0
    store.close()
    store = open_store(tmp_path)
    assert store.counters().cursors["slow"].lost_lines == batch.lost_lines
    balance(store)
    store.close()


def test_lines_a_sink_took_while_retention_removed_them_are_not_lost(tmp_path: Path) -> None:
    store = open_store(tmp_path, max_bytes=100_000)
    cursor = store.cursor("es")
    rng = random.Random(1)
    for _ in range(100):
        store.append(source(), lines_block([rng.randbytes(900).replace(b"\n", b"_")]))
    batch = cursor.next(1 << 30)
    for _ in range(100):
        store.append(source(), lines_block([rng.randbytes(900).replace(b"\n", b"_")]))
    store.maintain()
    assert store.counters().removed_lines["size"] > 0
    cursor.commit(batch.token)
    rest = cursor.next(1 << 30)
    assert sum(s.block.lines for s in [*batch.blocks, *rest.blocks]) + rest.lost_lines == 200
    assert store.counters().cursors["es"].lost_lines == rest.lost_lines
    store.close()


def test_retention_by_age_waits_for_the_slowest_cursor(tmp_path: Path) -> None:
    store = open_store(tmp_path, max_age_seconds=60.0)
    store.cursor("es")
    for number in range(20):
        store.append(source(), lines_block([b"%d" % number * 500]))
    store.maintain()
    assert store.counters().removed_lines["age"] == 0
    read_all(store, "es")
    store.maintain()
    counters = store.counters()
    assert counters.removed_lines["age"] > 0
    assert counters.cursors["es"].lost_lines == 0
    balance(store)
    store.drop_cursor("es")
    store.close()
