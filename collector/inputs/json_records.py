"""Checks blocks of json-file records as they come off a disk that may have seen a crash.

A sound block costs a few vector passes. Only one that fails them, or is small, is looked at record by record,
and what is no record (runs of NUL bytes, a record torn by a power cut) is cut out and counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from logdrivers.codecs import json_file as codec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Checked", "check", "repair"]

_NEWLINE, _QUOTE, _BRACE, _CLOSE = 10, 34, 123, 125
_START = b'{"log":"'
#: Fewer bytes are not worth the vector passes.
_SMALL = 1024


class Checked(NamedTuple):
    """A block of records, and what had to be cut out of it."""

    data: bytes
    lines: int
    skipped: int  #: runs of bytes that are no record
    skipped_bytes: int


def check(data: bytes) -> Checked:
    """Return ``data`` (lines, each ended by ``\\n``) without what is no json-file record."""
    if len(data) < _SMALL:
        return repair(data)
    import numpy as np  # memory an agent whose containers write little is spared

    octets = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(octets == _NEWLINE)
    lines = len(ends)
    if data.startswith(_START) and b"\0" not in data and _framed(octets, ends):
        # Inside a JSON string a quote has its backslash, so {" opens a record or its attributes.
        opens = np.count_nonzero((octets[:-1] == _BRACE) & (octets[1:] == _QUOTE))
        if opens == lines or (opens == 2 * lines and data.count(b'"attrs":{"') == lines):
            return Checked(data, lines, 0, 0)
    return repair(data)


def _framed(octets: npt.NDArray[np.uint8], ends: npt.NDArray[Any]) -> bool:
    """Whether every line but the first starts with ``{"`` and every line ends with ``"}``."""
    starts = ends[:-1] + 1
    return bool(
        (octets[starts] == _BRACE).all()
        and (octets[starts + 1] == _QUOTE).all()
        and (octets[ends - 1] == _CLOSE).all()
        and (octets[ends - 2] == _QUOTE).all()
    )


def repair(data: bytes) -> Checked:
    """As ``check``, each record by itself: slow, and sure of what it keeps."""
    kept: list[bytes] = []
    skipped = skipped_bytes = 0
    for line in data.split(b"\n")[:-1]:
        record = _record_in(line)
        if record:
            kept.append(record)
        if record != line or not line:
            skipped += 1
            skipped_bytes += len(line) - len(record) + (not record)
    return Checked(b"".join(b"%b\n" % record for record in kept), len(kept), skipped, skipped_bytes)


def _record_in(line: bytes) -> bytes:
    """The record in ``line``, which may have torn bytes before it; b"" if there is none."""
    if _is_record(line):
        return line
    at = line.rfind(_START)
    if at > 0 and _is_record(line[at:]):
        return line[at:]
    return b""


def _is_record(line: bytes) -> bool:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    if not isinstance(fields, dict) or not isinstance(time := fields.get("time"), str):
        return False
    try:
        codec.parse_time(time.encode("utf-8", "replace"))
    except ValueError:
        return False
    return isinstance(fields.get("log", ""), str)
