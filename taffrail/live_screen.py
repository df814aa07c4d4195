"""Text that stays in its place on a terminal: drawn over itself without flicker, fitted to the window.

What the text says is the caller's; keys are not read here.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import TextIO

__all__ = ["LiveScreen", "fit"]

_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_CLEAR, _HOME = "\x1b[2J", "\x1b[H"
_TO_LINE_END, _TO_SCREEN_END = "\x1b[K", "\x1b[J"
# Terminals that know it show the frame at once, others ignore it.
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"


def fit(lines: Sequence[str], last: Sequence[str], columns: int, rows: int) -> list[str]:
    """The lines that fit: long ones cut, those too many counted in a line of their own, ``last`` kept at the end."""
    room = max(rows - 1 - len(last), 1)  # the cursor stays on the last row
    if len(lines) > room:
        more = len(lines) - room + 1
        lines = [*lines[: room - 1], f"… {more} more"]
    return [line[:columns] for line in (*lines, *last)][: max(rows - 1, 1)]


class LiveScreen:
    """A context: the cursor is hidden inside it, and a change of the window's size draws again."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._lines: Sequence[str] = ()
        self._last: Sequence[str] = ()
        self._drawing = False
        self._resized = False
        self._before: object = None

    def __enter__(self) -> LiveScreen:
        self._before = signal.signal(signal.SIGWINCH, self._on_resize)
        self._out.write(_HIDE + _CLEAR)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGWINCH, self._before)  # type: ignore[arg-type]
        if not isinstance(error, BrokenPipeError):
            self._out.write(_SHOW)
            self._out.flush()

    def draw(self, lines: Sequence[str], last: Sequence[str] = ()) -> None:
        """Show these lines in the place of those before."""
        self._lines, self._last = lines, last
        self._again()

    def _on_resize(self, _number: int, _frame: FrameType | None) -> None:
        self._resized = True
        if not self._drawing:
            self._again()

    def _again(self) -> None:
        self._drawing = True
        try:
            while True:
                clear = _CLEAR if self._resized else ""
                self._resized = False
                shown = fit(self._lines, self._last, *_size(self._out))
                text = "".join(line + _TO_LINE_END + "\n" for line in shown)
                self._out.write(_BEGIN + clear + _HOME + text + _TO_SCREEN_END + _END)
                self._out.flush()
                if not self._resized:
                    return
        finally:
            self._drawing = False


def _size(out: TextIO) -> tuple[int, int]:
    """Columns and rows of the window now, whatever COLUMNS and LINES said when the shell was started."""
    try:
        size = os.get_terminal_size(out.fileno())
    except OSError:  # no terminal, or one that is going away
        return 80, 24
    return size.columns or 80, size.lines or 24
