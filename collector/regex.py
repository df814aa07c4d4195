"""Regular expressions run in a process of their own, so that none can hang the agent.

Python's matcher cannot be interrupted and holds the interpreter while it backtracks. A search that needs
expressions starts one small process, hands it texts, and ends it when the search's time is up.
"""

from __future__ import annotations

import os
import re
import select
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as sre_parse  # type: ignore[attr-defined]
from typing import Any, Final

import numpy as np

from collector.query import Regex

__all__ = ["RegexProcess", "RegexTimeout", "spans_lines"]

_REQUEST = struct.Struct("<BBIIQ")  # kind, flags, bytes of the pattern, lines, bytes of the text
_EACH, _SCAN = 0, 1

#: The other side, run by ``python -c``: only the standard library, so that it starts in milliseconds.
_PROGRAM: Final = r"""
import re, struct, sys
from array import array
read, write = sys.stdin.buffer.read, sys.stdout.buffer.write
head = struct.Struct("<BBIIQ")
known = {}
while True:
    data = read(head.size)
    if len(data) < head.size:
        break
    kind, flags, pattern_bytes, lines, text_bytes = head.unpack(data)
    pattern = read(pattern_bytes)
    lengths = array("I")
    if kind == 0:
        lengths.frombytes(read(4 * lines))
    text = read(text_bytes)
    search = known.get((pattern, flags))
    if search is None:
        search = known[pattern, flags] = re.compile(pattern.decode("utf-8", "surrogatepass"), flags).search
    if kind == 0:
        found, at = bytearray(lines), 0
        for i, length in enumerate(lengths):
            if search(text[at:at + length].decode("utf-8", "replace")):
                found[i] = 1
            at += length
    else:
        text = text.decode("utf-8", "replace")
        numbers, at, line, find, count = array("I"), 0, 0, text.find, text.count
        while match := search(text, at):
            start = match.start()
            line += count("\n", at, start)
            numbers.append(line)
            at = find("\n", start) + 1
            line += 1
            if not at:
                break
        found = numbers.tobytes()
    write(struct.pack("<Q", len(found)) + found)
    sys.stdout.buffer.flush()
"""


class RegexTimeout(TimeoutError):
    """The search's time was up while an expression ran; the text names the expression."""


class RegexProcess:
    """Matches texts against expressions until ``deadline`` (of ``time.monotonic``)."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline  #: of ``time.monotonic``; may be moved
        self._process: subprocess.Popen[bytes] | None = None

    def each(self, regex: Regex, texts: Sequence[bytes]) -> list[bool]:
        """For each text whether the expression is found in it. Raises RegexTimeout."""
        if not texts:
            return []
        lengths = np.fromiter(map(len, texts), np.uint32, len(texts)).tobytes()
        answer = self._ask(_EACH, regex, len(texts), lengths, b"".join(texts))
        return [found == 1 for found in answer]

    def scan(self, regex: Regex, text: bytes) -> np.ndarray[Any, np.dtype[np.uint32]]:
        """Indexes of the lines of ``text`` it may be found in, all of them and maybe some more.

        Not for an expression that ``spans_lines``. Raises RegexTimeout.
        """
        return np.frombuffer(self._ask(_SCAN, regex, 0, b"", text), np.uint32)

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        process.wait()

    def _ask(self, kind: int, regex: Regex, lines: int, lengths: bytes, text: bytes) -> bytes:
        pattern = regex.pattern.encode("utf-8", "surrogatepass")
        flags = (re.IGNORECASE if regex.ignore_case else 0) | (re.MULTILINE if kind == _SCAN else 0)
        head = _REQUEST.pack(kind, int(flags), len(pattern), lines, len(text))
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={},
                bufsize=0,
            )
            assert self._process.stdin is not None
            os.set_blocking(self._process.stdin.fileno(), False)
        self._send(regex, b"".join((head, pattern, lengths, text)))
        (size,) = struct.unpack("<Q", self._receive(regex, 8))
        return self._receive(regex, size)

    def _send(self, regex: Regex, data: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        fd, view = self._process.stdin.fileno(), memoryview(data)
        while view:
            self._wait(regex, fd, select.POLLOUT)
            with suppress(BlockingIOError):
                view = view[os.write(fd, view) :]

    def _receive(self, regex: Regex, size: int) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        fd, parts = self._process.stdout.fileno(), bytearray()
        while len(parts) < size:
            self._wait(regex, fd, select.POLLIN)
            part = os.read(fd, min(size - len(parts), 1 << 20))
            if not part:
                raise OSError(f"the process for the expression /{regex.pattern}/ ended by itself")
            parts += part
        return bytes(parts)

    def _wait(self, regex: Regex, fd: int, event: int) -> None:
        poll = select.poll()
        poll.register(fd, event)
        left = self.deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            self.close()
            raise RegexTimeout(f"the regular expression /{regex.pattern}/ took too long")


_ACROSS: Final = frozenset((sre.CATEGORY_SPACE, sre.CATEGORY_NOT_DIGIT, sre.CATEGORY_NOT_WORD))


def spans_lines(regex: Regex) -> bool:
    """Whether the expression, run over many lines at once, could look beyond the end of one."""
    parsed = sre_parse.parse(regex.pattern, re.IGNORECASE if regex.ignore_case else 0)
    if parsed.state.flags & (re.DOTALL | re.MULTILINE):
        return True
    return _looks_beyond(parsed)


def _looks_beyond(parsed: Any) -> bool:
    for operation, argument in parsed:
        if operation in (sre.ASSERT, sre.ASSERT_NOT, sre.GROUPREF, sre.GROUPREF_EXISTS, sre.NOT_LITERAL):
            return True
        if operation is sre.AT and argument in (sre.AT_BEGINNING_STRING, sre.AT_END_STRING):
            return True
        if operation is sre.LITERAL and argument == 10:
            return True
        if operation is sre.IN and any(
            kind is sre.NEGATE
            or (kind is sre.CATEGORY and what in _ACROSS)
            or (kind is sre.LITERAL and what == 10)
            or (kind is sre.RANGE and what[0] <= 10 <= what[1])
            for kind, what in argument
        ):
            return True
        if operation is sre.BRANCH and any(map(_looks_beyond, argument[1])):
            return True
        if operation is sre.SUBPATTERN and (argument[1] or argument[2] or _looks_beyond(argument[3])):
            return True
        if operation is sre.ATOMIC_GROUP and _looks_beyond(argument):
            return True
        if operation in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT) and _looks_beyond(
            argument[2]
        ):
            return True
    return False
