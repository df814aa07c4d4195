"""Times as the Engine API takes and gives them: Unix seconds with a fraction, and RFC 3339 with nanoseconds.

Pure text and numbers; Python's datetime stops at microseconds, so the fraction is carried beside it.
"""

from __future__ import annotations

import datetime
import re
import time

from runtime.errors import BadRequest

__all__ = ["ZERO_TIME", "parse_time", "rfc3339"]

ZERO_TIME = "0001-01-01T00:00:00Z"  #: Go's zero time: never
_UNIX = re.compile(r"^(-?\d+)(?:\.(\d{1,9})\d*)?$")
_RFC3339 = re.compile(r"^(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)?$")


def parse_time(value: str, name: str) -> int:
    """Nanoseconds since the epoch of a ``since`` or ``until``; 0 for an empty value.

    BadRequest names the parameter and what it may hold.
    """
    if value in ("", "0"):
        return 0
    if found := _UNIX.match(value):
        fraction = int((found[2] or "").ljust(9, "0"))
        seconds = int(found[1])
        return seconds * 1_000_000_000 + (fraction if seconds >= 0 else -fraction)
    if found := _RFC3339.match(value):
        zone = (found[3] or "Z").upper().replace("Z", "+00:00")
        try:
            moment = datetime.datetime.fromisoformat(found[1].upper() + zone)
        except ValueError as error:
            raise BadRequest(f"invalid value {value!r} for parameter {name}: {error}") from None
        return int(moment.timestamp()) * 1_000_000_000 + int((found[2] or "").ljust(9, "0"))
    raise BadRequest(
        f"invalid value {value!r} for parameter {name}: expected Unix seconds (1700000000.5) or RFC 3339"
    )


def rfc3339(time_ns: int) -> str:
    """Go's RFC3339Nano: up to nine digits of fraction, trailing zeros left off; never for 0."""
    if time_ns <= 0:
        return ZERO_TIME
    seconds, fraction = divmod(time_ns, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"
