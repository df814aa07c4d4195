"""What is small and changes in a store: sources, cursors, checkpoints and totals, in one SQLite file.

A commit survives kill -9 and a power cut. Frames in raw segments that are newer than ``state_through``
carry further checkpoints and line numbers; opening the store puts the two together.
"""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from collector.sink import Source

__all__ = ["Catalog", "CursorRow", "Removal"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS text_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sources (
    number INTEGER PRIMARY KEY, source TEXT NOT NULL UNIQUE, next_line INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS checkpoints (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cursors (
    name TEXT PRIMARY KEY, segment INTEGER NOT NULL, frame INTEGER NOT NULL, chunk INTEGER NOT NULL,
    lost_pending INTEGER NOT NULL DEFAULT 0, lost INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
"""
_FIELDS = ("container_id", "container_name", "image", "host", "input", "engine", "labels")


@dataclass(slots=True)
class CursorRow:
    """A cursor as it is kept."""

    segment: int
    frame: int
    chunk: int
    lost_pending: int = 0  #: lines retention took that the owner has not been told of
    lost: int = 0  #: all lines retention ever took from it


@dataclass(frozen=True, slots=True)
class Removal:
    """What removing one segment means for the totals."""

    segment: int
    lines: int
    raw_bytes: int
    corrupt_lines: int
    cause: str  #: ``size`` or ``age``


class Catalog:
    """The SQLite file. Every method may be called from any thread; sqlite errors come as OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        with self._errors():
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = errno.ENOSPC if "full" in str(error) else errno.EIO
            raise OSError(code, f"store catalog: {error}", str(self._path)) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; nested calls join the outer one."""
        with self._lock, self._errors():
            if self._db.in_transaction:
                yield self._db
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    # --- totals ---

    def number(self, key: str, default: int = 0) -> int:
        """A total or a mark."""
        with self._lock, self._errors():
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return int(row[0]) if row else default

    def set_number(self, key: str, value: int) -> None:
        """Keep a total or a mark."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def numbers(self) -> dict[str, int]:
        """All totals and marks."""
        with self._lock, self._errors():
            return dict(self._db.execute("SELECT key, value FROM meta"))

    def text(self, key: str) -> str:
        """A text that was kept, or ``""``."""
        with self._lock, self._errors():
            row = self._db.execute("SELECT value FROM text_meta WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else ""

    def set_text(self, key: str, value: str) -> None:
        """Keep a text."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO text_meta VALUES (?, ?)", (key, value))

    def removed(self, removal: Removal, cursors: Mapping[str, CursorRow]) -> None:
        """Note that a segment is gone, and where that leaves the cursors, before its file is."""
        with self.transaction() as db:
            for key, value in (
                (f"removed_lines_{removal.cause}", removal.lines - removal.corrupt_lines),
                (f"removed_bytes_{removal.cause}", removal.raw_bytes),
                ("corrupt_lines_removed", removal.corrupt_lines),
            ):
                db.execute(
                    "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = value + ?2",
                    (key, value),
                )
            db.execute("INSERT OR REPLACE INTO meta VALUES ('removed_through', ?)", (removal.segment,))
            for name, row in cursors.items():
                self.put_cursor(name, row)

    # --- sources ---

    def sources(self) -> list[tuple[int, Source, int]]:
        """Number, source and next line of each."""
        with self._lock, self._errors():
            rows = self._db.execute("SELECT number, source, next_line FROM sources ORDER BY number")
            return [(number, _source(text), next_line) for number, text, next_line in rows]

    def add_source(self, source: Source) -> int:
        """Number a source."""
        values = {name: getattr(source, name) for name in _FIELDS[:-1]}
        text = orjson.dumps(values | {"labels": dict(sorted(source.labels.items()))}).decode()
        with self.transaction() as db:
            found = db.execute("SELECT number FROM sources WHERE source = ?", (text,)).fetchone()
            if found:
                return int(found[0])
            return int(db.execute("INSERT INTO sources (source) VALUES (?)", (text,)).lastrowid or 0)

    # --- state as of a segment's end ---

    def save_state(
        self,
        through: int,
        totals: tuple[int, int],
        next_lines: Iterable[tuple[int, int]],
        checkpoints: Mapping[str, bytes | None],
    ) -> None:
        """Keep lines and bytes written, line numbers and checkpoints as they are after segment ``through``."""
        with self.transaction() as db:
            db.executemany("UPDATE sources SET next_line = ?2 WHERE number = ?1", list(next_lines))
            db.executemany(
                "INSERT OR REPLACE INTO checkpoints VALUES (?, ?)",
                [(key, value) for key, value in checkpoints.items() if value is not None],
            )
            db.executemany(
                "DELETE FROM checkpoints WHERE key = ?",
                [(key,) for key, value in checkpoints.items() if value is None],
            )
            marks = (("state_through", through), ("lines_through", totals[0]), ("bytes_through", totals[1]))
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", marks)

    def checkpoints(self) -> dict[str, bytes]:
        """As of ``state_through``."""
        with self._lock, self._errors():
            return dict(self._db.execute("SELECT key, value FROM checkpoints"))

    # --- cursors ---

    def cursors(self) -> dict[str, CursorRow]:
        """Every cursor by name."""
        query = "SELECT name, segment, frame, chunk, lost_pending, lost FROM cursors"
        with self._lock, self._errors():
            return {name: CursorRow(*rest) for name, *rest in self._db.execute(query)}

    def put_cursor(self, name: str, row: CursorRow) -> None:
        """Keep a cursor."""
        with self.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO cursors VALUES (?, ?, ?, ?, ?, ?)",
                (name, row.segment, row.frame, row.chunk, row.lost_pending, row.lost),
            )

    def drop_cursor(self, name: str) -> None:
        """Forget a cursor."""
        with self.transaction() as db:
            db.execute("DELETE FROM cursors WHERE name = ?", (name,))


def _source(text: str) -> Source:
    return Source(**orjson.loads(text))
