"""Reads bbolt databases, the single-file B+ trees in which containerd and podman 3 and 4 keep what they know.

Read only and without its lock: writers never change a page that the newest valid meta page leads to until
two commits later, and a reader that met a torn state says so with ValueError and may try again. Source of
the format: the file layout of go.etcd.io/bbolt, version 2. What the buckets hold is the caller's business.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

__all__ = ["BoltFile", "Bucket"]

_PAGE = struct.Struct("<QHHI")  # id, flags, count, overflow
_META = struct.Struct(
    "<IIIIQQQQQQ"
)  # magic, version, page size, flags, root, sequence, free list, pages, tx, sum
_LEAF = struct.Struct("<IIII")  # flags, position, key size, value size
_BRANCH = struct.Struct("<IIQ")  # position, key size, page
_BUCKET = struct.Struct("<QQ")  # root page, sequence
_MAGIC, _VERSION = 0xED0CDAED, 2
_BRANCH_PAGE, _LEAF_PAGE, _META_PAGE = 1, 2, 4
_IS_BUCKET = 1
_DEEPEST = 32
_PAST_ANY_FILE = 1 << 63
_MOST_PAGES = 1 << 16
_LARGEST_PAGE = 64 << 20
_PAGE_SIZES = frozenset(1 << shift for shift in range(10, 17))


class BoltFile:
    """One open database; a context manager."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where it cannot be opened, ValueError where it is no such database."""
        self._path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._page_size, self._root, self.transaction = self._meta()
        except (OSError, ValueError):
            os.close(self._fd)
            raise

    def __enter__(self) -> BoltFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def root(self) -> Bucket:
        """The bucket of all buckets."""
        return Bucket(self, self._root, b"")

    def page(self, number: int) -> bytes:
        """A page with its overflow. Raises OSError, ValueError."""
        if number >= _PAST_ANY_FILE // self._page_size:
            raise ValueError(f"{self._path}: page {number} is beyond the file")
        head = os.pread(self._fd, self._page_size, number * self._page_size)
        if len(head) < _PAGE.size:
            raise ValueError(f"{self._path}: page {number} is beyond the file")
        found, _flags, _count, overflow = _PAGE.unpack_from(head)
        size = (overflow + 1) * self._page_size
        if found != number or size > _LARGEST_PAGE:
            raise ValueError(f"{self._path}: page {number} is not what leads to it expects")
        return head if not overflow else os.pread(self._fd, size, number * self._page_size)

    def _meta(self) -> tuple[int, int, int]:
        """Page size, root page and transaction of the newest of the two meta pages that are whole."""
        start = os.pread(self._fd, 1 << 16, 0)
        best: tuple[int, int, int] | None = None
        size = 4096
        for at in (0, 4096, 8192, 16384, 32768):
            meta = _meta_at(start, at)
            if meta is not None and (best is None or meta[2] > best[2]):
                best = meta
                size = meta[0]
            if at and at >= size:
                break
        if best is None:
            raise ValueError(
                f"{self._path}: expected a bbolt database of version 2, found no whole meta page"
            )
        return best


def _meta_at(data: bytes, at: int) -> tuple[int, int, int] | None:
    if len(data) < at + _PAGE.size + _META.size:
        return None
    _number, flags, _count, _overflow = _PAGE.unpack_from(data, at)
    at += _PAGE.size
    magic, version, page_size, _flags, root, _sequence, _free, _pages, transaction, total = _META.unpack_from(
        data, at
    )
    if not flags & _META_PAGE or magic != _MAGIC or version != _VERSION or page_size not in _PAGE_SIZES:
        return None
    if _fnv(data[at : at + _META.size - 8]) != total:
        return None
    return page_size, root, transaction


def _fnv(data: bytes) -> int:
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for octet in data:
        value = (value ^ octet) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


class Bucket:
    """A map of keys to values or to further buckets, in the order of keys."""

    def __init__(self, file: BoltFile, root: int, inline: bytes) -> None:
        self._file = file
        self._root = root
        self._inline = inline  # a small bucket's only page, kept in the value that names it

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; None for no key, and for one that names a bucket."""
        found = self._find(key)
        return None if found is None or found[0] & _IS_BUCKET else found[1]

    def bucket(self, *keys: bytes) -> Bucket | None:
        """The bucket at this path of keys, or None."""
        bucket = self
        for key in keys:
            found = bucket._find(key)
            if found is None or not found[0] & _IS_BUCKET:
                return None
            if len(found[1]) < _BUCKET.size:
                raise ValueError(
                    f"a bucket's root has {len(found[1])} bytes: expected {_BUCKET.size} or more"
                )
            root, _sequence = _BUCKET.unpack_from(found[1])
            bucket = Bucket(self._file, root, found[1][_BUCKET.size :] if root == 0 else b"")
        return bucket

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All keys and values that are no buckets. Raises ValueError on damage."""
        try:
            for flags, key, value in self._leaves(self._page(self._root), set(), _DEEPEST):
                if not flags & _IS_BUCKET:
                    yield key, value
        except struct.error as error:
            raise ValueError(f"a page of the tree is cut short: {error}") from error

    def _page(self, number: int) -> bytes:
        return self._inline if self._inline else self._file.page(number)

    def _find(self, key: bytes) -> tuple[int, bytes] | None:
        try:
            return self._search(key)
        except struct.error as error:
            raise ValueError(f"a page of the tree is cut short: {error}") from error

    def _search(self, key: bytes) -> tuple[int, bytes] | None:
        page = self._page(self._root)
        for _ in range(_DEEPEST):
            _number, flags, count, _overflow = _PAGE.unpack_from(page)
            if flags & _LEAF_PAGE:
                for number in range(count):
                    element, found, value = _leaf(page, number)
                    if found == key:
                        return element, value
                return None
            if not flags & _BRANCH_PAGE or not count:
                raise ValueError(f"a page of the tree has flags {flags}: expected a branch or a leaf")
            child = _branch(page, 0)[1]
            for number in range(count):
                first, page_number = _branch(page, number)
                if first > key:
                    break
                child = page_number
            page = self._file.page(child)
        raise ValueError(f"a tree of more than {_DEEPEST} levels")

    def _leaves(self, page: bytes, seen: set[int], levels: int) -> Iterator[tuple[int, bytes, bytes]]:
        if not levels:
            raise ValueError(f"a tree of more than {_DEEPEST} levels")
        _number, flags, count, _overflow = _PAGE.unpack_from(page)
        if flags & _LEAF_PAGE:
            for number in range(count):
                yield _leaf(page, number)
            return
        if not flags & _BRANCH_PAGE:
            raise ValueError(f"a page of the tree has flags {flags}: expected a branch or a leaf")
        if len(seen) > _MOST_PAGES:
            raise ValueError(f"a tree of more than {_MOST_PAGES} pages")
        for number in range(count):
            child = _branch(page, number)[1]
            if child in seen:
                raise ValueError(f"page {child} is met twice in one tree")
            seen.add(child)
            yield from self._leaves(self._file.page(child), seen, levels - 1)


def _leaf(page: bytes, number: int) -> tuple[int, bytes, bytes]:
    at = _PAGE.size + number * _LEAF.size
    try:
        flags, position, key_size, value_size = _LEAF.unpack_from(page, at)
    except struct.error as error:
        raise ValueError(f"a leaf page ends within its elements: {error}") from error
    start = at + position
    if start + key_size + value_size > len(page):
        raise ValueError("an element of a leaf page points beyond it")
    return flags, page[start : start + key_size], page[start + key_size : start + key_size + value_size]


def _branch(page: bytes, number: int) -> tuple[bytes, int]:
    at = _PAGE.size + number * _BRANCH.size
    try:
        position, key_size, child = _BRANCH.unpack_from(page, at)
    except struct.error as error:
        raise ValueError(f"a branch page ends within its elements: {error}") from error
    return page[at + position : at + position + key_size], child
