"""A page of metrics taken apart: series and values for whoever sends them on.

Text format 0.0.4 as ``exporters/prometheus`` writes it, without timestamps. A series is known by its bytes
up to the value; they are parsed once, when the series is first seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["parse_series", "split_page"]

_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)', re.DOTALL)
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_COMMENT = ord("#")


def split_page(body: bytes, size: int = 1 << 18) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Each sample's text before its value, and the value's, of about ``size`` bytes at a time."""
    start = 0
    while start < len(body):
        end = body.find(b"\n", start + size)
        end = len(body) if end < 0 else end
        lines = [line for line in body[start:end].split(b"\n") if line and line[0] != _COMMENT]
        pairs = [line.rpartition(b" ") for line in lines]
        yield [pair[0] for pair in pairs], [pair[2] for pair in pairs]
        start = end + 1


def parse_series(text: bytes) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Name and labels of ``name{key="value",…}``. Raises ValueError naming what it cannot read."""
    name, brace, rest = text.decode("utf-8", "replace").strip().partition("{")
    if not _NAME.fullmatch(name) or (brace and not rest.endswith("}")):
        raise ValueError(f'{text!r}: expected a series like name{{key="value"}}')
    labels = []
    inside, at = rest[:-1], 0
    while at < len(inside):
        found = _LABEL.match(inside, at)
        if found is None:
            raise ValueError(f'{text!r}: expected key="value" at {inside[at : at + 20]!r}')
        labels.append((found[1], _ESCAPE.sub(_unescape, found[2]) if "\\" in found[2] else found[2]))
        at = found.end()
    return name, tuple(labels)


def _unescape(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]
