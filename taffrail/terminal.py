"""Log lines on a terminal: what a container printed is shown, never obeyed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from zlib import crc32

__all__ = ["line_of_hit", "visible"]

#: C0 except tab, DEL, C1, and the characters that reorder text.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """``text`` with every control character made visible (``\\x1b``, ``\\u202e``), so it cannot drive a terminal."""
    return _CONTROL.sub(
        lambda match: f"\\x{ord(match[0]):02x}" if ord(match[0]) < 256 else f"\\u{ord(match[0]):04x}", text
    )


def line_of_hit(hit: Mapping[str, object], *, color: bool) -> str:
    """``time container | line``, standard error marked, the container's name in a colour of its own."""
    time_ns = hit["time_ns"]
    assert isinstance(time_ns, int)
    moment = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    name = visible(str(hit["container"]) or "-")
    mark = "!" if hit.get("stream") == "stderr" else "|"
    if color:
        name = f"\x1b[{31 + crc32(name.encode()) % 6}m{name}\x1b[0m"
    return f"{moment}.{time_ns % 1_000_000_000 // 1_000_000:03d}Z {name} {mark} {visible(str(hit['line']))}\n"
