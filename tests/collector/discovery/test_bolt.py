"""The databases real containerd writes, whole and damaged."""

from __future__ import annotations

import random
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import live
import pytest

from collector.discovery.bolt import BoltFile, _fnv

NAMES = [f"n{number:03d}" for number in range(60)]


def value(name: str) -> str:
    return f"{name}-" + "v" * 200


@pytest.fixture(scope="module")
def database() -> Iterator[Path]:
    """containerd's metadata with more than fits into a page."""
    engine = live.Containerd(Path(tempfile.mkdtemp(dir="/tmp", prefix="tfb")))
    try:
        for name in NAMES:
            engine("namespaces", "create", name, f"key={value(name)}")
        yield engine.root / "root/io.containerd.metadata.v1.bolt/meta.db"
    finally:
        for name in NAMES:
            engine("namespaces", "rm", name, check=False)
        engine.close()


def labels(path: Path) -> dict[str, str]:
    found = {}
    with BoltFile(path) as file:
        for name in NAMES:
            bucket = file.root().bucket(b"v1", name.encode(), b"labels")
            assert bucket is not None
            found[name] = (bucket.get(b"key") or b"").decode()
            assert [key for key, _ in bucket.items()] == [b"key"]
    return found


def test_buckets_over_many_pages(database: Path) -> None:
    assert labels(database) == {name: value(name) for name in NAMES}
    with BoltFile(database) as file:
        root = file.root()
        assert root.bucket(b"v1", b"nobody") is None
        assert root.bucket(b"v1", b"n000", b"labels", b"key") is None  # a value is no bucket
        top = root.bucket(b"v1")
        assert top is not None
        assert top.get(b"n000") is None  # and a bucket no value
        assert top.get(b"zzz") is None
        assert [key for key, _ in top.items()] == [b"version"]


def test_damage_is_told_and_nothing_else_happens(database: Path, tmp_path: Path) -> None:
    whole = database.read_bytes()
    damaged = tmp_path / "db"
    chance = random.Random(4)
    told = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 40)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        damaged.write_bytes(data)
        try:
            labels(damaged)
        except (ValueError, AssertionError):
            told += 1
    assert told > 20


@pytest.mark.parametrize("content", [b"", b"no database", b"\0" * 70000])
def test_another_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "db").write_bytes(content)
    with pytest.raises(ValueError, match="expected a bbolt database"):
        BoltFile(tmp_path / "db")


def made(path: Path, pages: int, flags_and_child: Callable[[int], tuple[int, int]], size: int = 1024) -> Path:
    """A database of two meta pages and ``pages`` more, each with one element: a branch's child, or none."""
    meta = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, size, 0, 2, 0, 1, pages + 2, 1)
    meta += struct.pack("<Q", _fnv(meta))
    data = bytearray()
    for number in range(2):
        data += (struct.pack("<QHHI", number, 4, 0, 0) + meta).ljust(size, b"\0")
    for number in range(2, pages + 2):
        flags, child = flags_and_child(number)
        data += (struct.pack("<QHHIIIQ", number, flags, 1, 0, 16, 0, child)).ljust(size, b"\0")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("child", "told"),
    [
        (lambda number: (1, number + 1), "more than 32 levels"),
        (lambda _number: (1, 2), "more than 32 levels|met twice"),
        (lambda _number: (1, 1 << 62), "beyond the file"),
        (lambda _number: (1, (1 << 64) - 1), "beyond the file"),
    ],
)
def test_a_tree_made_to_be_gone_down_without_end(
    tmp_path: Path, child: Callable[[int], tuple[int, int]], told: str
) -> None:
    with BoltFile(made(tmp_path / "db", 5000, child)) as file:
        for ask in (lambda: list(file.root().items()), lambda: file.root().get(b"k")):
            with pytest.raises(ValueError, match=told):
                ask()


@pytest.mark.parametrize("size", [0, 512, 1000, 1 << 17, (1 << 32) - 4096])
def test_pages_of_a_size_that_no_database_has(tmp_path: Path, size: int) -> None:
    path = made(tmp_path / "db", 1, lambda _number: (2, 0))
    data = bytearray(path.read_bytes())
    meta = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, size, 0, 2, 0, 1, 3, 1)
    meta += struct.pack("<Q", _fnv(meta))
    data[16 : 16 + len(meta)] = meta
    path.write_bytes(data)
    with pytest.raises(ValueError, match="no whole meta page"):
        BoltFile(path)
