"""A chunk: many lines of one source as search reads them, wherever they come from.

Its text holds one line per ``\\n``; what a line's time, stream and attributes are stands beside it. Three
layouts: lines as written, whole json-file records, or records split in two columns (messages still escaped,
and the rest), which is how sealed segments keep them: search then reads half the bytes.
"""

from __future__ import annotations

import enum
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

import orjson

from logdrivers.block import Stream
from logdrivers.codecs import json_file

__all__ = ["JOINER", "OPENER", "Chunk", "Layout", "Line", "Row"]

#: Stands between the columns of a split record: the end of its message, and its beginning.
JOINER: Final = b'\\n","stream":"'
OPENER: Final = b'{"log":"'


class Layout(enum.IntEnum):
    """How the text of a chunk is made."""

    LINES = 0  #: as the container wrote them (a piece of a longer line got a newline)
    RECORDS = 1  #: whole json-file records
    SPLIT = 2  #: the messages of json-file records, escaped; the rest of each record is in ``rest``


class Row(NamedTuple):
    """Lines of a chunk that came together: their numbers and times."""

    first_line: int  #: number in the source
    lines: int
    first_ns: int
    last_ns: int
    stream: int
    piece: int = 0  #: 0, or the ordinal of the piece in a longer line


class Line(NamedTuple):
    """A decoded line."""

    time_ns: int
    number: int  #: in its source
    stream: Stream
    text: bytes  #: without its newline
    attrs: Mapping[str, str]


_NO_ATTRS: Final[Mapping[str, str]] = {}


class Chunk:
    """Lines of one source. Rows are in the order of the text; line indexes count from its beginning.

    What most searches never need is read when it is asked for: ``rows`` and ``rest`` may be given as a
    function, which may raise Corrupt or OSError when it is called.
    """

    __slots__ = (
        "_rest",
        "_rest_lines",
        "_rows",
        "_starts",
        "_text_lines",
        "has_attrs",
        "layout",
        "source",
        "text",
    )

    def __init__(
        self,
        source: int,
        layout: Layout,
        rows: Sequence[Row] | Callable[[], Sequence[Row]],
        text: bytes,
        rest: Callable[[], bytes] | None = None,
        has_attrs: bool = False,
    ) -> None:
        self.source = source
        self.layout = layout
        self.text = text
        self.has_attrs = has_attrs  #: with ``SPLIT``: some records have attributes, which are in the rest
        self._rows = rows
        self._rest = rest  # only with ``SPLIT``
        self._starts: list[int] | None = None
        self._text_lines: list[bytes] | None = None
        self._rest_lines: list[bytes] | None = None

    @property
    def rows(self) -> Sequence[Row]:
        """Lines that came together."""
        if callable(self._rows):
            self._rows = self._rows()
        return self._rows

    @property
    def starts(self) -> list[int]:
        """Index of each row's first line."""
        if self._starts is None:
            self._starts = list(accumulate((row.lines for row in self.rows[:-1]), initial=0))
        return self._starts

    @property
    def lines(self) -> int:
        """How many lines there are."""
        return self.starts[-1] + self.rows[-1].lines

    def rests(self) -> list[bytes]:
        """With ``SPLIT``: what follows the message in each record, up to the newline."""
        if self._rest_lines is None:
            self._rest_lines = self._rest().split(b"\n") if self._rest is not None else []
        return self._rest_lines

    def row_of(self, line: int) -> int:
        """Index of the row that holds the ``line``-th line of the chunk."""
        return bisect_right(self.starts, line) - 1

    def split(self) -> list[bytes]:
        """The lines of the text, as they stand in it."""
        if self._text_lines is None:
            self._text_lines = self.text.split(b"\n")
        return self._text_lines

    def decode(self, row_index: int, wanted: Sequence[int]) -> list[Line]:
        """Lines of one row, by their index in the chunk."""
        row, start = self.rows[row_index], self.starts[row_index]
        lines = self.split()
        number = row.first_line - start
        if self.layout is Layout.LINES:
            stream = Stream(row.stream)
            return [Line(row.first_ns, number + i, stream, lines[i], _NO_ATTRS) for i in wanted]
        if self.layout is Layout.RECORDS:
            data = b"\n".join([lines[i] for i in wanted])
        else:
            rests = self.rests()
            data = b"\n".join([b"".join((OPENER, lines[i], JOINER, rests[i])) for i in wanted])
        bad: list[bytes] = []
        records = json_file.decode(data, bad)
        if bad or len(records) != len(wanted):
            return self._decode_each(row, number, wanted, data.split(b"\n"))
        return [
            Line(record.time_ns, number + i, record.stream, record.log.removesuffix(b"\n"), record.attrs)
            for i, record in zip(wanted, records, strict=True)
        ]

    def _decode_each(self, row: Row, number: int, wanted: Sequence[int], data: Sequence[bytes]) -> list[Line]:
        """As ``decode`` when some records are none: those are shown as they are, at the row's time."""
        found = []
        for index, line in zip(wanted, data, strict=True):
            bad: list[bytes] = []
            records = json_file.decode(line, bad)
            if records:
                record = records[0]
                text = record.log.removesuffix(b"\n")
                found.append(Line(record.time_ns, number + index, record.stream, text, record.attrs))
            else:
                found.append(Line(row.first_ns, number + index, Stream(row.stream), line, _NO_ATTRS))
        return found

    def plain_text(self) -> bytes | None:
        """The text with nothing escaped, one line per newline; None where that cannot be said in one."""
        if self.layout is Layout.LINES:
            return self.text
        if self.layout is Layout.RECORDS:
            try:
                messages = json_file.messages(self.text + b"\n")
            except ValueError:
                return None
            if len(messages) != self.lines:
                return None
            text = b"\n".join([message.removesuffix(b"\\n") for message in messages])
        else:
            text = self.text
        if b"\\" not in text:
            return text
        if b"\\n" in text:  # a line that holds newlines
            return None
        try:
            return str(orjson.loads(b'"%s"' % text.replace(b"\n", b"\\n"))).encode("utf-8", "replace")
        except orjson.JSONDecodeError:
            return None
