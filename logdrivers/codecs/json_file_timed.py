"""json-file's records of lines that have a stream and a time each, as a Docker Engine hands them to a plugin.

The bytes are those of ``codecs/json_file.py``; here all times of many lines are rendered at once, which takes
numpy, and what a shim imports stays without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from logdrivers.block import Stream
from logdrivers.codecs.json_file import escape_lines, format_second, render_attributes

__all__ = ["TimedEncoder"]

Column = npt.NDArray[np.int64]

_OPEN = b'{"log":"'
_SECOND = 1_000_000_000
_DIGITS = 9
_CLOSE = b'Z"}\n'


class TimedEncoder:
    """Encodes one container's lines; its attributes are rendered once."""

    def __init__(self, attrs: Mapping[str, str] | None = None) -> None:
        self._attrs = render_attributes(attrs)

    def encode(self, lines: Sequence[bytes], streams: Column, times_ns: Column) -> bytes:
        """Lines without newline as records. Raises ValueError for a newline, or columns of unequal length."""
        if not len(lines) == len(streams) == len(times_ns):
            raise ValueError(f"{len(lines)} lines with {len(streams)} streams and {len(times_ns)} times")
        if not lines:
            return b""
        joined = b"\n".join((*lines, b""))
        held = np.count_nonzero(
            np.frombuffer(joined, np.uint8) == ord("\n")
        )  # bytes.count takes ten times as long
        if held != len(lines):
            raise ValueError(f"{len(lines)} lines hold {held} newlines: {joined[:40]!r}")
        escaped = escape_lines(joined, len(lines))
        texts = lines if escaped == joined else escaped.split(b"\n")[:-1]
        # A record's end and the next one's beginning are one piece.
        pieces: list[bytes] = [_OPEN] * (2 * len(lines) + 1)
        pieces[1::2] = texts
        pieces[2::2] = self._ends(streams, times_ns)
        pieces[-1] = pieces[-1].removesuffix(_OPEN)
        return b"".join(pieces)

    def _ends(self, streams: Column, times_ns: Column) -> list[bytes]:
        """What stands behind each line's text, and the beginning of the next record."""
        seconds, fractions = np.divmod(times_ns, _SECOND)
        heads = self._heads(seconds, streams)
        digits = np.empty((len(fractions), _DIGITS), np.uint8)
        rest = fractions.astype(np.uint32)
        for place in reversed(range(_DIGITS)):
            shorter = rest // np.uint32(10)
            digits[:, place] = rest - shorter * np.uint32(10)
            rest = shorter
        tail = _CLOSE + _OPEN
        width = heads.shape[1] + _DIGITS + len(tail)
        rows = np.empty((len(fractions), width), np.uint8)
        rows[:, : heads.shape[1]] = heads
        rows[:, heads.shape[1] : -len(tail)] = digits + ord("0")
        rows[:, -len(tail) :] = np.frombuffer(tail, np.uint8)
        ends: list[bytes] = rows.reshape(-1).view(f"S{width}").tolist()
        for index in np.flatnonzero(digits[:, -1] == 0).tolist():
            ends[index] = ends[index][: -len(tail)].rstrip(b"0").removesuffix(b".") + tail
        return ends

    def _heads(self, seconds: Column, streams: Column) -> npt.NDArray[np.uint8]:
        """What stands between a line's text and the digits of its fraction: a row each, or one for all."""
        keys = seconds * len(Stream) + streams
        if (keys == keys[0]).all():
            return np.frombuffer(self._head(int(keys[0])), np.uint8).reshape(1, -1)
        distinct, which = np.unique(keys, return_inverse=True)
        heads = b"".join([self._head(key) for key in distinct.tolist()])
        return np.frombuffer(heads, np.uint8).reshape(len(distinct), -1)[which]

    def _head(self, key: int) -> bytes:
        second, stream = divmod(key, len(Stream))
        return b'\\n","stream":"%s",%s"time":"%s.' % (
            Stream(stream).text.encode(),
            self._attrs,
            format_second(second),
        )
