"""The databases real containerd writes, whole and damaged."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import live
import pytest

from collector.discovery.bolt import BoltFile

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
