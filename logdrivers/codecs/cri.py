"""Kubernetes' CRI log format, which podman calls k8s-file: ``<time> <stream> <tag> <text>`` a line.

Lines are brought to json-file's records, the form everything that is read from files has. The tag ``F`` ends
a line, ``P`` is a piece of one that goes on; further tags may follow behind a colon. Source of the format:
the Kubernetes CRI logging design; times are RFC 3339 with the writer's offset.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from logdrivers.codecs import json_file

__all__ = ["Converted", "last_time", "to_json_file"]

_HEAD = (
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?)(Z|[+-]\d\d:\d\d) (stdout|stderr) ([FP])(?::[^ \n]*)?"
)
_LINES = re.compile(rb"^" + _HEAD + rb"(?: (.*))?\n", re.MULTILINE)
_LINE = re.compile(_HEAD + rb"(?: (.*))?\n", re.DOTALL)
_UTC = frozenset({b"Z", b"+00:00", b"-00:00"})
_END = {b"F": b"\\n", b"P": b""}


class Converted(NamedTuple):
    """Records, and what had to be left out of them."""

    data: bytes
    lines: int
    skipped: int  #: lines that are not in the format
    skipped_bytes: int


def to_json_file(data: bytes) -> Converted:
    """``data`` (lines, each ended by a newline) as json-file records; what is no CRI line is left out."""
    lines = data.count(b"\n")
    found = _LINES.findall(json_file.escape_lines(data, lines))
    if len(found) == lines:
        return Converted(b"".join(map(_record, found)), lines, 0, 0)
    kept: list[bytes] = []
    skipped = skipped_bytes = 0
    for part in data.split(b"\n")[:-1]:
        line = part + b"\n"
        match = _LINE.fullmatch(json_file.escape_lines(line, 1))
        if match is None:
            skipped += 1
            skipped_bytes += len(line)
        else:
            kept.append(_record(match.groups(b"")))
    return Converted(b"".join(kept), len(kept), skipped, skipped_bytes)


def last_time(data: bytes) -> int:
    """The time of the last line, nanoseconds since the epoch. Raises ValueError where that is no CRI line."""
    line = data[data.rfind(b"\n", 0, -1) + 1 :]
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"{line[:60]!r}: expected a CRI log line")
    return json_file.parse_time(match[1] + match[2])


def _record(fields: tuple[bytes, ...]) -> bytes:
    time, zone, stream, tag, text = fields
    if zone not in _UTC:
        time = json_file.format_time(json_file.parse_time(time + zone)).rstrip(b"Z")
    return b'{"log":"%b%b","stream":"%b","time":"%bZ"}\n' % (text, _END[tag], stream, time)
