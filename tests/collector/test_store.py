import errno
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.query import parse
from collector.segments import sealing
from collector.store import Store, StoreLocked
from logdrivers.block import Block, Encoding, Stream

sys.path.insert(0, str(Path(__file__).parent))
from store_blocks import (
    NOW,
    Model,
    balance,
    json_block,
    lines_block,
    numbered,
    open_store,
    piece_block,
    random_block,
    read_all,
    source,
    texts,
)


def test_blocks_come_back_as_they_went_in(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    blocks = [
        lines_block([b"one", b"", b"two"]),
        piece_block(b"x" * 20_000, 1, last=False),
        piece_block(b"", 2, last=True),
        json_block([b'say "hi"', b"\ttab"], [NOW, NOW + 5], {"k": "v"}),
        lines_block([b"\xff\x00 raw"], NOW + 9, Stream.STDERR),
    ]
    for block in blocks:
        store.append(source(), block)
    for sealed in (False, True):
        if sealed:
            store.append(source(), lines_block([b"x" * 5000]))
            store.append(source(), lines_block([b"in the next segment"]))
            store.maintain()
            assert store.counters().sealed_segments > 0
        batch = store.cursor(f"c{sealed}").next(1 << 20)
        assert [stored.block for stored in batch.blocks[:5]] == blocks
        assert [stored.first_line for stored in batch.blocks[:5]] == [0, 3, 4, 5, 7]
    store.close()


def test_a_store_keeps_its_identity_and_another_has_another(tmp_path: Path) -> None:
    identities = []
    for name in ("one", "one", "two"):
        store = open_store(tmp_path / name)
        identities.append(store.identity)
        store.close()
    assert identities[0] == identities[1] != identities[2]
    assert all(identities)


def test_a_second_process_is_refused_by_name(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with pytest.raises(StoreLocked, match=f"in use by process {os.getpid()}"):
        open_store(tmp_path)
    store.close()
    open_store(tmp_path).close()


@pytest.mark.parametrize(
    "block",
    [
        Block(b"a\nb\n", Encoding.LINES, Stream.STDOUT, 1, 1, 1),
        Block(b"a\nb", Encoding.LINES, Stream.STDOUT, 1, 1, 1),
        Block(b"a" * 9999 + b"\n", Encoding.LINES, Stream.STDOUT, 1, 1, 2),
    ],
)
def test_a_block_that_lies_about_its_lines_is_refused(tmp_path: Path, block: Block) -> None:
    store = open_store(tmp_path)
    with pytest.raises(ValueError, match=f"block of {block.lines} lines"):
        store.append(source(), block)
    assert store.counters().written_lines == 0
    store.close()


def test_the_checkpoint_is_in_with_the_block_or_not_at_all(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert store.checkpoint("file") is None
    for offset in range(200):
        store.append(source(), lines_block([b"x" * 100]), ("file", b"%d" % offset))
    store.append(source(), lines_block([b"other"]), ("other", b"1"))
    store.maintain()
    store.forget_checkpoint("other")
    store.close()
    store = open_store(tmp_path)
    assert store.checkpoint("file") == b"199"
    store.close()


def test_a_torn_tail_is_cut_at_every_byte_and_the_checkpoint_tells(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    store = open_store(origin, segment_bytes=1 << 20)
    for number in range(3):
        store.append(source(), lines_block([b"line %d" % number]), ("in", b"%d" % number))
    segment = next(origin.glob("*.raw"))
    before = segment.stat().st_size
    store.append(source(), json_block([b"last"] * 3, [NOW] * 3), ("in", b"3"))
    whole = segment.read_bytes()
    for cut in range(before, len(whole) + 1):
        copy = tmp_path / "copy"
        shutil.copytree(origin, copy)
        (copy / segment.name).write_bytes(whole[:cut])
        again = open_store(copy)
        complete = cut == len(whole)
        assert again.checkpoint("in") == (b"3" if complete else b"2")
        assert again.counters().written_lines == (6 if complete else 3)
        assert again.counters().torn_bytes == (0 if complete else cut - before)
        again.append(source(), lines_block([b"after"]), ("in", b"4"))
        found = numbered(read_all(again))
        assert len(found) == (7 if complete else 4)
        assert b"after" in found.values()
        balance(again)
        again.close()
        shutil.rmtree(copy)
    store.close()


def test_damage_in_the_middle_is_skipped_and_its_lines_are_counted(tmp_path: Path) -> None:
    store = open_store(tmp_path, segment_bytes=1 << 20)
    sizes = []
    (segment,) = tmp_path.glob("*.raw")
    for number in range(5):
        sizes.append(segment.stat().st_size)
        store.append(source(), lines_block([b"block %d" % number] * (number + 1)))
    store.close()
    content = bytearray(segment.read_bytes())
    content[sizes[1] + 4] ^= 1  # in the header of the second
    content[sizes[3] - 4] ^= 1  # in the data of the third
    segment.write_bytes(content)
    store = open_store(tmp_path)
    counters = store.counters()
    assert counters.written_lines == 15
    assert counters.corrupt_lines == 2 + 3
    assert counters.held_lines == 10
    found = numbered(read_all(store))
    assert sorted(set(found.values())) == [b"block 0", b"block 3", b"block 4"]
    assert found[("web", 6)] == b"block 3"
    balance(store)
    store.close()


def test_damage_found_while_reading_costs_only_what_is_damaged(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for number in range(40):
        store.append(source(f"c{number % 3}"), lines_block([b"%d" % number * 60] * 3))
    store.maintain()
    (sealed, *_) = sorted(tmp_path.glob("*.sealed"))
    content = bytearray(sealed.read_bytes())
    content[20] ^= 255
    sealed.write_bytes(content)
    everything = parse("*")
    found = list(store.search(everything, 0, NOW * 2, 1000))
    assert 0 < len(found) < 120
    assert store.counters().damaged_frames > 0
    assert 0 < len(numbered(read_all(store))) < 120
    store.close()


def test_a_full_disk_raises_and_leaves_the_store_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    store.append(source(), lines_block([b"before"]), ("k", b"1"))
    real: Callable[..., int] = os.pwritev

    def full(fd: int, parts: list[bytes], offset: int) -> int:
        real(fd, [b"".join(parts)[:30]], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(OSError, match="No space left"):
        store.append(source(), lines_block([b"lost"]), ("k", b"2"))
    monkeypatch.undo()
    assert store.checkpoint("k") == b"1"
    store.append(source(), lines_block([b"after"]), ("k", b"3"))
    assert list(numbered(read_all(store)).items()) == [(("web", 0), b"before"), (("web", 1), b"after")]
    store.close()
    store = open_store(tmp_path)
    assert store.counters().torn_bytes == 0
    assert store.counters().written_lines == 2
    store.close()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.lists(st.integers(0, 99), min_size=5, max_size=80))
def test_a_store_is_a_list_whatever_happens_between(
    tmp_path_factory: pytest.TempPathFactory, seed: int, steps: list[int]
) -> None:
    """Appends, cursors, sealing, reopening and kills in any order: no line lost, none twice."""
    rng = random.Random(seed)
    directory = tmp_path_factory.mktemp("s")
    store, model = open_store(directory), Model()
    got: dict[str, dict[tuple[str, int], bytes]] = {"a": {}, "b": {}}
    for number, step in enumerate(steps):
        if step < 60:
            name = f"c{rng.randrange(3)}"
            for _ in range(rng.randrange(1, 6)):
                block = random_block(rng, NOW + number * 1000)
                store.append(source(name), block, (name, b"%d" % number))
                model.add(name, block)
        elif step < 80:
            name = rng.choice("ab")
            cursor = store.cursor(name)
            batch = cursor.next(rng.choice([1, 500, 5000]))
            if rng.random() < 0.3:
                store.maintain()
            if rng.random() < 0.8:
                fresh = numbered(list(batch.blocks))
                assert not fresh.keys() & got[name].keys()
                got[name] |= fresh
                cursor.commit(batch.token)
        elif step < 90:
            store.maintain()
        elif step < 95:
            store.close()
            store = open_store(directory)
        else:  # a kill: what a copy of the files holds now
            copy = tmp_path_factory.mktemp("s")
            shutil.copytree(directory, copy, dirs_exist_ok=True)
            store.close()
            directory, store = copy, open_store(copy)
        balance(store)
    for name in "ab":
        got[name] |= numbered(read_all(store, name))
        for container, lines in model.lines.items():
            mine = {key[1]: text for key, text in got[name].items() if key[0] == container}
            assert mine == {index: text for index, (text, _) in enumerate(lines)}
        assert store.cursor(name).lag() == (0, 0)
    assert store.counters().written_lines == sum(map(len, model.lines.values()))
    store.close()


def test_times_and_streams_survive_sealing(tmp_path: Path) -> None:
    rng = random.Random(7)
    store = open_store(tmp_path)
    expected = []
    for number in range(60):
        block = random_block(rng, NOW + number * 10_000)
        store.append(source(), block)
        expected += texts(block)
    store.maintain()
    found = [line for stored in read_all(store) for line in texts(stored.block)]
    assert found == expected
    for stored in read_all(store, "again"):
        times = [time_ns for _, time_ns in texts(stored.block)]
        assert stored.block.first_ns == min(times)
        assert stored.block.last_ns == max(times)
    store.close()


@pytest.mark.parametrize("at", ["written", "renamed"])
def test_a_crash_while_sealing_leaves_one_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    store = open_store(tmp_path)
    for number in range(20):
        store.append(source(), lines_block([b"%d" % number * 300]))
    copy = tmp_path.with_name(tmp_path.name + "-copy")

    def snapshot(directory: Path) -> None:
        if not copy.exists():
            shutil.copytree(tmp_path, copy)

    if at == "renamed":
        monkeypatch.setattr(sealing, "sync_directory", snapshot)
    else:
        real = os.fsync

        def fsync(fd: int) -> None:
            snapshot(tmp_path)
            real(fd)

        monkeypatch.setattr(os, "fsync", fsync)
    store.maintain()
    monkeypatch.undo()
    assert list(copy.glob("*.tmp" if at == "written" else "*.sealed"))
    again = open_store(copy)
    assert len(numbered(read_all(again))) == 20
    assert not list(copy.glob("*.tmp"))
    names = [path.stem for path in copy.iterdir() if path.suffix in (".raw", ".sealed")]
    assert len(names) == len(set(names))
    balance(again)
    again.close()
    store.close()


_KILLED = """
import sys
from pathlib import Path
from collector.store import Store
from collector.sink import Source
from logdrivers.block import Block, Encoding, Stream
store = Store(Path(sys.argv[1]), segment_bytes=20_000)
source = Source("i" * 64, "web", "img", "h", "json-file")
at = int(store.checkpoint("in") or b"0")
while True:
    data = b"".join(b"line %08d %s\\n" % (at + i, b"x" * 50) for i in range(7))
    store.append(source, Block(data, Encoding.LINES, Stream.STDOUT, at, at, 7), ("in", b"%d" % (at + 7)))
    at += 7
    print(at, flush=True)
"""


def test_kill_9_at_any_moment_loses_nothing_that_was_appended(tmp_path: Path) -> None:
    rng = random.Random(3)
    reached = 0
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", _KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(rng.randrange(1, 2000)):
            reached = int(process.stdout.readline())
        process.kill()
        for line in process.stdout:
            reached = int(line) if line.endswith("\n") else reached
        process.wait()
        process.stdout.close()
    store = open_store(tmp_path)
    found = numbered(read_all(store, max_bytes=1 << 20))
    checkpoint = int(store.checkpoint("in") or b"0")
    assert checkpoint >= reached
    assert len(found) == checkpoint
    assert sorted(found.values()) == [b"line %08d %s" % (i, b"x" * 50) for i in range(checkpoint)]
    balance(store)
    store.close()


def test_numbers_are_not_given_again_after_a_power_cut(tmp_path: Path) -> None:
    store = open_store(tmp_path, segment_bytes=1 << 20)
    store.append(source(), lines_block([b"kept"]))
    (segment,) = tmp_path.glob("*.raw")
    size = segment.stat().st_size
    store.append(source(), lines_block([b"taken by the power cut, but an exporter had it"]))
    exported = numbered(read_all(store))
    store.close()
    os.truncate(segment, size + 10)
    store = open_store(tmp_path)
    store.append(source(), lines_block([b"another line"]))
    fresh = numbered(read_all(store))
    assert list(fresh.values()) == [b"another line"]
    assert not fresh.keys() & exported.keys()
    store.close()


def test_segments_without_their_catalog_are_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.append(source(), lines_block([b"x"]))
    store.close()
    for path in tmp_path.glob("catalog.db*"):
        path.unlink()
    with pytest.raises(OSError, match="is missing beside 1 segments"):
        open_store(tmp_path)


def test_many_threads_append_search_and_seal_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path, segment_bytes=30_000)
    errors: list[BaseException] = []

    def run(work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)
                raise

        thread = threading.Thread(target=guarded)
        thread.start()
        return thread

    def write(name: str) -> None:
        for number in range(400):
            store.append(source(name), lines_block([b"%s %d" % (name.encode(), number)] * 3, NOW + number))

    def look() -> None:
        for _ in range(20):
            list(store.search(parse("a 39*"), 0, NOW * 2, 50))

    def export() -> None:
        read_all(store, "es", 20_000)

    threads = [run(lambda name=name: write(name)) for name in "abc"]  # type: ignore[misc]
    threads += [run(look), run(export)]
    for thread in threads:
        thread.join()
    assert not errors
    store.maintain()
    everything = numbered(read_all(store, "new", 1 << 20))
    assert len(everything) == 3600
    balance(store)
    store.close()
