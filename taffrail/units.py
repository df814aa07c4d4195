"""Sizes, durations and times as people write and read them, with Docker's words and rounding.

``bytes_size`` is Docker's binary form (``514.3MiB``, memory in ``docker stats``), ``human_size`` its
decimal one (``1.25kB``, network and block I/O).
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

__all__ = [
    "bytes_size",
    "duration_text",
    "human_size",
    "parse_duration",
    "parse_moment",
    "parse_size",
    "parse_time",
]

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?", re.IGNORECASE)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|ns|w|d|h|m|s)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def _four_digits(value: float, step: float, units: tuple[str, ...]) -> str:
    """Go's ``%.4g`` with the first unit that brings the value below ``step`` (as Docker's units package)."""
    unit = 0
    while value >= step and unit < len(units) - 1:
        value /= step
        unit += 1
    return f"{value:.4g}{units[unit]}"


def bytes_size(value: float) -> str:
    """Bytes in binary units, four significant digits: ``1.5KiB``."""
    return _four_digits(value, 1024.0, _BINARY)


def human_size(value: float) -> str:
    """Bytes in decimal units, three significant digits, as ``docker stats`` prints I/O: ``1.25kB``."""
    unit = 0
    while value >= 1000.0 and unit < len(_DECIMAL) - 1:
        value /= 1000.0
        unit += 1
    return f"{value:.3g}{_DECIMAL[unit]}"


def parse_size(text: str) -> int:
    """Bytes from ``10GiB``, ``512m``, ``1.5g`` or a plain number. One letter is binary, ``kB``-style too.

    Raises ValueError naming the text.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"{text!r} is not a size: expected a number with an optional unit, like 512m or 10GiB"
        )
    exponent = "_kmgtp".index(match[2].lower()) if match[2] else 0
    return int(float(match[1]) * 1024**exponent)


def parse_duration(text: str) -> float:
    """Seconds from ``90``, ``10m``, ``1h30m``, ``7d``.

    Raises ValueError naming the text.
    """
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration: expected something like 30s, 10m, 1h30m or 7d")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def duration_text(seconds: int) -> str:
    """Whole seconds in the largest unit that keeps them whole: ``90 s``, ``5 min``, ``12 h``, ``1 d``."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds and seconds % length == 0:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def parse_time(text: str, now: float | None = None) -> int:
    """Nanoseconds since the epoch from a duration before now, Unix seconds, or RFC 3339 (local if no zone).

    The forms ``docker logs --since`` takes. Raises ValueError naming the text.
    """
    now = time.time() if now is None else now
    if re.fullmatch(r"\d{9,}(\.\d+)?", text):
        whole, _, fraction = text.partition(".")
        return int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, "0") or 0)
    try:
        return int((now - parse_duration(text)) * 1e9)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is not a time: expected a duration like 10m, Unix seconds, or 2026-01-31T12:00:00Z"
        ) from None
    if moment.tzinfo is None:
        moment = moment.astimezone()
    return int(moment.astimezone(UTC).timestamp() * 1e6) * 1000


def parse_moment(text: str, now_ns: int) -> int:
    """Nanoseconds since the epoch from a time of day (the last that has been), or what ``parse_time`` takes.

    Raises ValueError naming the text.
    """
    match = re.fullmatch(r"(\d{1,2}):(\d\d)(?::(\d\d))?", text)
    if match is None:
        try:
            return parse_time(text, now_ns / 1e9)
        except ValueError as error:
            raise ValueError(str(error).replace("expected ", "expected a time of day like 03:00, ")) from None
    now = datetime.fromtimestamp(now_ns / 1e9)
    hour, minute, second = (int(part or 0) for part in match.groups())
    try:
        there = now.replace(hour=hour, minute=minute, second=second, microsecond=0)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time of day: {error}") from None
    if there > now:
        there -= timedelta(days=1)
    return int(there.timestamp()) * 1_000_000_000
