"""Json-file records to columns: all times, all streams, all messages, for the encoders of other formats.

A block of the log plugin, or of received messages, has a time for each line; taken apart here a block at a
time, it costs a quarter of ``json_file.decode``, which takes over where records are not in the usual form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from logdrivers.block import Stream
from logdrivers.codecs.json_file import decode, parse_time

__all__ = ["Columns", "columns"]

_STREAMS = {stream.text: stream for stream in Stream}
_SECOND = len("2026-11-20T19:43:32.")
_DIGITS = 9


class Columns(NamedTuple):
    """The records of a block, field by field; all are of one length. Attributes are left out."""

    times_ns: Sequence[int]
    streams: Sequence[Stream]
    logs: Sequence[bytes]  #: each with its newline, unless it is a piece of a longer line


def columns(data: bytes) -> Columns:
    """The records in ``data``, whoever wrote them. Raises ValueError for a line that is not a record."""
    if not data:
        return Columns((), (), ())
    try:
        return _parse(data)
    except (ValueError, KeyError, TypeError, AttributeError):  # unusual in some record: one by one
        records = decode(data)
        return Columns(
            [record.time_ns for record in records],
            [record.stream for record in records],
            [record.log for record in records],
        )


def _parse(data: bytes) -> Columns:
    records = orjson.loads(b"[%s]" % data.removesuffix(b"\n").replace(b"\n", b","))
    if len(records) != data.count(b"\n") + (not data.endswith(b"\n")):
        raise ValueError("not a record a line")
    return Columns(
        _times([record["time"] for record in records]),
        [_STREAMS[record["stream"]] for record in records],
        [record["log"].encode() for record in records],
    )


def _times(texts: Sequence[str]) -> list[int]:
    """Nanoseconds of each text: of a second that occurs often, only the fraction is read."""
    seconds = [text[:_SECOND] for text in texts]  # with the point, or with the Z if there is no fraction
    digits = [text[_SECOND:-1] for text in texts]
    fractions = "".join(digits)
    if not (
        {text[-1:] for text in texts} == {"Z"}
        and (not fractions or (fractions.isascii() and fractions.isdecimal()))
        and max(map(len, digits)) <= _DIGITS
        and digits.count("") == list(map(len, texts)).count(_SECOND)
    ):
        return [parse_time(text.encode()) for text in texts]
    begins = {
        second: parse_time(f"{second.rstrip('.Z')}Z".encode())
        for second in set(seconds)
        if second[-1] in ".Z"
    }
    return [
        begins[second] + int(fraction.ljust(_DIGITS, "0"))
        for second, fraction in zip(seconds, digits, strict=True)
    ]
