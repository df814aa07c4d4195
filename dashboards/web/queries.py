"""Moments and numbers in a request's query; what cannot be read is refused by its name."""

from __future__ import annotations

import re

from aiohttp import web

from dashboards.web.answers import refusal

__all__ = ["number_of", "time_of"]

_NUMBER = re.compile(r"(-?)(\d{1,20})(?:\.(\d{1,9}))?")
_NANOSECONDS = 10**15  # larger numbers are nanoseconds
_LATEST_US = 1 << 53


def time_of(request: web.Request, key: str, now_us: int, default_us: int) -> int:
    """A time in microseconds: Unix seconds (``1767225600.5``), nanoseconds, or seconds before now (``-3600``).

    Raises a refusal with status 400.
    """
    text = request.query.get(key, "")
    if not text:
        return default_us
    match = _NUMBER.fullmatch(text)
    if match is not None:
        whole = int(match[2])
        micro = whole * 1_000_000 + int((match[3] or "")[:6].ljust(6, "0"))
        if match[1]:
            micro = now_us - micro
        elif whole >= _NANOSECONDS:
            micro = whole // 1000
        if 0 <= micro < _LATEST_US:
            return micro
    raise refusal(
        web.HTTPBadRequest,
        f"{key}={text!r}: expected Unix seconds, nanoseconds, or seconds before now, like -3600",
    )


def number_of(request: web.Request, key: str) -> int | None:
    """A whole number; None where there is none. Raises a refusal with status 400."""
    text = request.query.get(key, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 20:
        raise refusal(web.HTTPBadRequest, f"{key}={text[:40]!r}: expected a whole number")
    return int(text)
