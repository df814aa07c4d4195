"""What ``taffrail top`` is showing and what a key does to it, without a terminal and without an agent.

A stack of levels (containers, a container's processes, a process's threads, files, connections), each with
its own cursor, order and filter, at the present or at a moment of the past.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from taffrail.terminal import visible
from taffrail.top.columns import FLEET_COLUMNS, LISTS, Column, Kind, Row, number, text_of
from taffrail.top.filtering import FilterError, row_test
from taffrail.units import parse_moment

__all__ = ["Frame", "Level", "Model", "Row", "Subject"]

_SECOND = 1_000_000_000

#: How far ``[`` ``]``, ``{`` ``}`` and ``(`` ``)`` go.
STEP_NS, LEAP_NS, HOUR_NS = 5 * _SECOND, 60 * _SECOND, 3600 * _SECOND


@dataclass(frozen=True, slots=True)
class Subject:
    """What a level is of; the key under which its frames are kept."""

    kind: Kind
    id: str = ""  #: a container's id (``/`` the host), a process's number
    start_ticks: int = 0  #: of a process: another one with its number is refused
    host: str = ""  #: by the name given to it; "" where there is one


@dataclass(frozen=True, slots=True)
class Frame:
    """The rows of a level at one moment, or why there are none."""

    time_ns: int
    rows: Sequence[Row] = ()
    host: str = ""
    problem: str = ""
    asked_ns: int | None = None  #: the moment that was asked for; None: now
    failed: bool = False  #: there are no rows since there was no answer
    ahead_ns: int = 0  #: how far the host's clock is ahead of ours, where it matters


@dataclass(slots=True)
class Level:
    """One list, and how it is looked at."""

    subject: Subject
    title: str
    column: str  #: title of the column it is sorted by
    reverse: bool  #: the largest first
    chosen: str = ""  #: identity of the row under the cursor
    cursor: int = 0
    top: int = 0  #: the first row shown
    filter: str = ""
    frame: Frame = field(default_factory=lambda: Frame(0))

    several: bool = False  #: containers of several hosts

    @property
    def columns(self) -> tuple[Column, ...]:
        """Of its kind."""
        columns = LISTS[self.subject.kind]
        return FLEET_COLUMNS if self.several else columns


def identity(row: Row) -> str:
    """What a row is recognised by when the list comes again."""
    for key in ("tid", "fd", "pid"):
        if key in row and "protocol" not in row:
            return f"{row[key]}"
    if "protocol" in row:
        return "|".join(str(row.get(k)) for k in ("protocol", "local", "local_port", "remote", "remote_port"))
    return f"{row.get('id')}|{row['host']}" if row.get("host") else str(row.get("id"))


def _level(subject: Subject, title: str, *, several: bool = False) -> Level:
    kind = subject.kind
    column = {"files": "FD", "connections": "STATE"}.get(kind, "CPU%")
    return Level(subject, title, column, kind not in ("files", "connections"), several=several)


class Model:
    """The whole state. ``handle`` takes keys, ``take`` takes frames, ``layout.py`` draws it."""

    def __init__(self, clock: Callable[[], int] = time.time_ns, *, several: bool = False) -> None:
        """``several``: the containers are those of several hosts."""
        self._clock = clock
        self.levels = [_level(Subject("containers"), "containers", several=several)]
        self.paused_ns: int | None = None  #: the moment that is shown; None: now
        self.prompt: str | None = None  #: the filter, or the time to go to, while it is typed
        self.prompt_for_time = False  #: which of them
        self.help = False
        self.done = False
        self.message = ""  #: for the line above the keys
        self.refused = ""  #: what was typed and cannot be read, until the next key
        self.page = 10  #: rows on the screen, told by whoever draws
        self.host = ""  #: the name of the host, once the agent has told it
        self.wanted = 0  #: rises when other rows than those shown are wanted
        self.waiting = True  #: for the first rows of what is wanted

    @property
    def level(self) -> Level:
        """The one on the screen."""
        return self.levels[-1]

    def take(self, subject: Subject, frame: Frame) -> None:
        """Rows have come; kept where the level they are of is still there."""
        if frame.asked_ns != self.paused_ns:  # an answer that was under way when another time was chosen
            return
        self.waiting = self.waiting and subject != self.level.subject
        self.host = visible(frame.host) or self.host
        for level in self.levels:
            if level.subject == subject:
                level.frame = frame

    def rows(self) -> list[Row]:
        """The level's rows that pass the filter, in order; the host's stays in front of containers."""
        level = self.level
        rows = list(level.frame.rows)
        self.message = visible(self.refused or level.frame.problem)
        if level.filter:
            try:
                test = row_test(level.subject.kind, level.filter)
                rows = [row for row in rows if row.get("id") == "/" or test(row)]
            except FilterError as error:
                if self.prompt is None:
                    self.message = visible(f"filter: {error}")
        column = next(column for column in level.columns if column.title == level.column)
        rows.sort(key=identity)
        rows.sort(key=lambda row: column.value(row), reverse=level.reverse)
        rows.sort(key=lambda row: row.get("id") != "/")
        self._settle(rows)
        return rows

    def _settle(self, rows: Sequence[Row]) -> None:
        """Keep the cursor on the row it was on."""
        level = self.level
        names = [identity(row) for row in rows]
        if level.chosen in names:
            level.cursor = names.index(level.chosen)
        level.cursor = max(0, min(level.cursor, len(rows) - 1))
        if rows and level.chosen not in names and self.paused_ns is None:
            level.chosen = names[level.cursor]
        level.top = min(level.top, level.cursor, max(0, len(rows) - self.page))
        level.top = max(level.top, level.cursor - self.page + 1, 0)

    # --- keys ----------------------------------------------------------------------------------------

    def handle(self, key: str) -> None:
        """Do what a key asks for; keys that mean nothing here are passed over."""
        self.refused = ""
        if key == "ctrl-c":
            self.done = True
        elif self.prompt is not None:
            self._type(key)
        elif self.help:
            self.help = False
        elif key in _ACTIONS:
            _ACTIONS[key](self)
        elif key.isupper():
            self._sort_by_letter(key)

    def _type(self, key: str) -> None:
        assert self.prompt is not None
        if key in ("enter", "escape"):
            text, self.prompt = self.prompt, None
            if self.prompt_for_time:
                self.prompt_for_time = False
                if key == "enter":
                    self._go_to(text)
            elif key == "escape":
                self.level.filter = ""
            return
        if key == "backspace":
            self.prompt = self.prompt[:-1]
        elif key == "ctrl-u":
            self.prompt = ""
        elif len(key) == 1:
            self.prompt += key
        if not self.prompt_for_time:
            self.level.filter = self.prompt.strip()
            self._seek()

    def _seek(self) -> None:
        """The cursor from a host's row, which no filter takes away, to the first that was found."""
        rows, level = self.rows(), self.level
        found = next((place for place, row in enumerate(rows) if row.get("id") != "/"), None)
        if level.filter and found is not None and rows[level.cursor].get("id") == "/":
            level.cursor, level.chosen = found, identity(rows[found])

    def _want(self) -> None:
        self.wanted += 1
        self.waiting = True

    def _move(self, by: int) -> None:
        rows = self.rows()
        level = self.level
        level.cursor = max(0, min(level.cursor + by, len(rows) - 1))
        if rows:
            level.chosen = identity(rows[level.cursor])

    def _current(self) -> Row | None:
        rows = self.rows()
        return rows[self.level.cursor] if rows else None

    def _open(self, kind: Kind, title: str, subject: str, start: int = 0) -> None:
        row = self._current() if self.level.subject.kind == "containers" else None
        host = text_of(row, "host") if row is not None and self.level.several else self.level.subject.host
        if host and row is not None and row.get("id") != "/":
            title = f"{title} on {host}"
        self.levels.append(_level(Subject(kind, subject, start, host), title))
        self._want()

    def _enter(self) -> None:
        row = self._current()
        kind = self.level.subject.kind
        if row is None or kind not in ("containers", "processes"):
            return
        if kind == "containers":
            self._open("processes", text_of(row, "name"), str(row["id"]))
        else:
            pid = str(row["pid"])
            self._open("threads", f"{pid} {text_of(row, 'name')}", pid, int(number(row, "start_ticks")))

    def _back(self) -> None:
        if len(self.levels) > 1:
            self.levels.pop()
            self._want()
        elif self.level.filter:
            self.level.filter = ""

    def _files(self) -> None:
        """The files of the process under the cursor, or of the one whose threads are shown."""
        kind, row = self.level.subject.kind, self._current()
        if kind == "processes" and row is not None:
            self._open("files", f"files of {row['pid']}", str(row["pid"]), int(number(row, "start_ticks")))
        elif kind == "threads":
            subject = self.level.subject
            self._open("files", f"files of {subject.id}", subject.id, subject.start_ticks)

    def _connections(self) -> None:
        """The connections of the container under the cursor, or of the one that was entered."""
        row = self._current()
        if self.level.subject.kind == "containers":
            if row is not None:
                self._open("connections", f"connections of {text_of(row, 'name')}", str(row["id"]))
            return
        for level in self.levels:
            if level.subject.kind == "processes" and self.level.subject.kind != "connections":
                self._open("connections", f"connections of {level.title}", level.subject.id)
                return

    def _sort(self, column: Column) -> None:
        level = self.level
        if level.column == column.title:
            level.reverse = not level.reverse
        else:
            level.column, level.reverse = column.title, column.right
        level.cursor = 0 if not level.chosen else level.cursor

    def _sort_by_letter(self, letter: str) -> None:
        for column in self.level.columns:
            if column.letter == letter:
                self._sort(column)

    def _sort_beside(self, by: int) -> None:
        columns = self.level.columns
        now = [column.title for column in columns].index(self.level.column)
        self._sort(columns[(now + by) % len(columns)])

    def _reverse(self) -> None:
        self.level.reverse = not self.level.reverse

    def _pause(self) -> None:
        self.paused_ns = self._clock() if self.paused_ns is None else None
        self._want()

    def _travel(self, by: int) -> None:
        now = self._clock()
        there = (now if self.paused_ns is None else self.paused_ns) + by
        self.paused_ns = there if there < now else None
        self._want()

    def _ask_for_time(self) -> None:
        self.prompt, self.prompt_for_time = "", True

    def _go_to(self, text: str) -> None:
        """Show the moment that was typed; nothing typed is now."""
        now = self._clock()
        try:
            there = parse_moment(text.strip(), now) if text.strip() else now
        except ValueError as error:
            self.refused = str(error)
            return
        self.paused_ns = there if there < now else None
        self._want()

    def _search(self) -> None:
        self.prompt = self.level.filter

    def _ask_for_help(self) -> None:
        self.help = True

    def _quit(self) -> None:
        self.done = True


_ACTIONS: dict[str, Callable[[Model], None]] = {
    "up": lambda model: model._move(-1),
    "down": lambda model: model._move(1),
    "k": lambda model: model._move(-1),
    "j": lambda model: model._move(1),
    "pageup": lambda model: model._move(-model.page),
    "pagedown": lambda model: model._move(model.page),
    "home": lambda model: model._move(-(1 << 30)),
    "end": lambda model: model._move(1 << 30),
    "enter": Model._enter,
    "right": Model._enter,
    "backspace": Model._back,
    "left": Model._back,
    "escape": Model._back,
    "f": Model._files,
    "c": Model._connections,
    "<": lambda model: model._sort_beside(-1),
    ">": lambda model: model._sort_beside(1),
    "r": Model._reverse,
    "p": Model._pause,
    " ": Model._pause,
    "[": lambda model: model._travel(-STEP_NS),
    "]": lambda model: model._travel(STEP_NS),
    "{": lambda model: model._travel(-LEAP_NS),
    "}": lambda model: model._travel(LEAP_NS),
    "(": lambda model: model._travel(-HOUR_NS),
    ")": lambda model: model._travel(HOUR_NS),
    "t": Model._ask_for_time,
    "/": Model._search,
    "?": Model._ask_for_help,
    "h": Model._ask_for_help,
    "q": Model._quit,
}
