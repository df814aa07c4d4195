"""Bytes of a terminal to names of keys: ``up``, ``enter``, ``a``; sequences cut in two are put together.

The sequences are xterm's and the Linux console's (console_codes(4)); what a key does is ``model.py``'s.
"""

from __future__ import annotations

__all__ = ["KeyDecoder"]

_SEQUENCES = {
    b"[A": "up",
    b"[B": "down",
    b"[C": "right",
    b"[D": "left",
    b"OA": "up",
    b"OB": "down",
    b"OC": "right",
    b"OD": "left",
    b"[H": "home",
    b"[F": "end",
    b"OH": "home",
    b"OF": "end",
    b"[1~": "home",
    b"[4~": "end",
    b"[7~": "home",
    b"[8~": "end",
    b"[5~": "pageup",
    b"[6~": "pagedown",
    b"[3~": "delete",
}
_PLAIN = {
    b"\r": "enter",
    b"\n": "enter",
    b"\x7f": "backspace",
    b"\b": "backspace",
    b"\x03": "ctrl-c",
    b"\x0c": "ctrl-l",
    b"\x15": "ctrl-u",
    b"\t": "tab",
}
_LONGEST = 16


class KeyDecoder:
    """Takes what was read, hands out whole keys."""

    def __init__(self) -> None:
        self._held = b""

    @property
    def waiting(self) -> bool:
        """Whether an escape has come that may be a key of its own or the first of a sequence."""
        return bool(self._held)

    def feed(self, data: bytes) -> list[str]:
        """The keys that are complete; unknown sequences are swallowed."""
        data = self._held + data
        self._held = b""
        keys = []
        while data:
            length, key = _first(data)
            if length == 0:
                self._held = data
                break
            data = data[length:]
            if key:
                keys.append(key)
        return keys

    def flush(self) -> list[str]:
        """Nothing has followed: an escape was the escape key."""
        held, self._held = self._held, b""
        return ["escape"] if held == b"\x1b" else []


def _first(data: bytes) -> tuple[int, str]:
    """How many bytes the first key takes (0: more are needed), and its name ("" for none of ours)."""
    first = data[:1]
    if first == b"\x1b":
        return _escape(data)
    if first in _PLAIN:
        return 1, _PLAIN[first]
    if first[0] < 0x20:
        return 1, ""
    length = 1 if first[0] < 0xC0 else 2 if first[0] < 0xE0 else 3 if first[0] < 0xF0 else 4
    if len(data) < length:
        return 0, ""
    text = data[:length].decode("utf-8", "replace")
    return length, text if text.isprintable() and "\ufffd" not in text else ""


def _escape(data: bytes) -> tuple[int, str]:
    if len(data) == 1:
        return 0, ""
    if data[1:2] == b"\x1b":
        return 1, "escape"
    if data[1:2] not in (b"[", b"O"):
        return 1, "escape"  # and then a key of its own
    for end in range(2, min(len(data), _LONGEST)):
        if 0x40 <= data[end] <= 0x7E:
            return end + 1, _SEQUENCES.get(data[1 : end + 1], "")
    return (0, "") if len(data) < _LONGEST else (len(data), "")
