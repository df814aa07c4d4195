"""The terminal: raw, on its second screen, with the cursor hidden; given back as it was however we end.

Plain escape sequences every terminal since the VT100 knows, and colours only where they are wanted. What
is on the lines is ``views.py``'s.
"""

from __future__ import annotations

import os
import sys
import termios
import tty
from collections.abc import Mapping, Sequence
from types import TracebackType

__all__ = ["Screen", "wants_colours"]

_ENTER = b"\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE = b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"


def wants_colours(environment: Mapping[str, str]) -> bool:
    """Not where ``NO_COLOR`` is set or the terminal says it has none."""
    return not environment.get("NO_COLOR") and environment.get("TERM", "dumb") not in (
        "dumb",
        "vt100",
        "vt220",
    )


class Screen:
    """A context: the terminal is ours inside and restored outside, exceptions included."""

    def __init__(self, input_fd: int | None = None, output_fd: int | None = None) -> None:
        self.input = sys.stdin.fileno() if input_fd is None else input_fd
        self._output = sys.stdout.fileno() if output_fd is None else output_fd
        self._saved: list[object] | None = None
        self._shown: list[str] = []
        self._size = (0, 0)

    def __enter__(self) -> Screen:
        """Raises OSError where it is no terminal."""
        try:
            self._saved = termios.tcgetattr(self.input)
        except termios.error as error:
            raise OSError(error.args[0], "standard input is not a terminal") from error
        tty.setraw(self.input, termios.TCSANOW)
        self._write(_ENTER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def restore(self) -> None:
        """Give the terminal back; a second call does nothing."""
        if self._saved is None:
            return
        saved, self._saved = self._saved, None
        try:
            self._write(_LEAVE)
        finally:
            termios.tcsetattr(self.input, termios.TCSADRAIN, saved)  # type: ignore[arg-type]

    def size(self) -> tuple[int, int]:
        """Columns and lines; 80 by 24 where the terminal does not say."""
        columns, lines = os.get_terminal_size(self._output)
        return columns or 80, lines or 24

    def show(self, lines: Sequence[str]) -> None:
        """Bring these lines on the screen, writing only those that changed."""
        size = self.size()
        parts = []
        if size != self._size:
            self._size, self._shown = size, []
            parts.append("\x1b[0m\x1b[2J")
        for row in range(size[1]):
            line = lines[row] if row < len(lines) else ""
            if row >= len(self._shown) or self._shown[row] != line:
                # Erased before, not behind: behind a full line the cursor stands on its last character.
                parts.append(f"\x1b[{row + 1};1H\x1b[0m\x1b[2K{line}\x1b[0m")
        self._shown = list(lines[: size[1]]) + [""] * max(0, size[1] - len(lines))
        if parts:
            self._write("".join(parts).encode())

    def forget(self) -> None:
        """Write everything again next time: something else wrote on the terminal."""
        self._size = (0, 0)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._output, view) :]
