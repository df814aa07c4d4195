"""Which neighbouring lines are one message: rules for stack traces of common languages, and by a user's pattern.

A rule looks at a whole read at once and names only the messages of several lines, so that output without any
costs one search for a few words, or one run of a compiled pattern. How long an unfinished message is waited for
and what becomes of one is the splitter's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from logdrivers.source.start_pattern import line_pattern

__all__ = ["PRESETS", "Rule", "Span", "start_rule"]


class Span(NamedTuple):
    """A message of several lines: offsets of its first byte and behind its last newline."""

    begin: int
    end: int


class Rule(Protocol):
    """Finds messages of several lines."""

    #: Whether any line may turn out to have a next one; if not, only the messages found may go on.
    any_line_goes_on: bool

    def spans(self, data: bytes, begin: int, end: int) -> Iterator[Span]:
        """The messages of more than one line in ``[begin, end)``, which is whole lines, in order.

        The one that ends at ``end`` may go on behind it; a message of one line does not appear, except, at
        the end, one that is the beginning of a longer one.
        """


@dataclass(frozen=True, slots=True)
class _Continued:
    """Lines that match ``tail`` belong to the line before them.

    ``tail`` begins with the newline before such a line and ends before its own, and takes as many as there
    are.
    """

    tail: re.Pattern[bytes]
    any_line_goes_on = True

    def spans(self, data: bytes, begin: int, end: int) -> Iterator[Span]:
        for match in self.tail.finditer(data, begin, end - 1):
            yield Span(data.rfind(b"\n", begin, match.start()) + 1 or begin, match.end() + 1)


@dataclass(frozen=True, slots=True)
class _Headed:
    """A line that has ``needle`` in it and, from its start, matches ``whole`` begins a message, which ``whole`` is."""

    whole: re.Pattern[bytes]
    needles: tuple[bytes, ...]
    any_line_goes_on = False

    def spans(self, data: bytes, begin: int, end: int) -> Iterator[Span]:
        if not any(needle in data for needle in self.needles):
            return
        here = begin
        while here < end:
            places = [at for needle in self.needles if (at := data.find(needle, here, end)) >= 0]
            if not places:
                return
            at = min(places)
            match = self.whole.match(data, data.rfind(b"\n", here, at) + 1 or here, end)
            if match is None:
                here = data.find(b"\n", at, end) + 1
                continue
            here = match.end()
            if b"\n" not in data[match.start() : here - 1] and here < end:
                continue  # a head alone, and what follows is no part of it
            yield Span(match.start(), here)


def _continued(lines: bytes) -> _Continued:
    # With the newline in front the search goes from newline to newline, not from byte to byte.
    line = rb"\n%s[^\n]*" % lines
    return _Continued(re.compile(rb"(?m)%s(?:%s)*" % (line, line)))


# \Z is the end of what has been read: what stands there may still become a part of the message.
# A terminal's lines end in \r\n.
_INDENTED = rb"(?:[ \t][^\n]*\n)*"
_PYTHON_TRACE = (
    rb"(?:Traceback \(most recent call last\):\r?\n%s(?:[A-Za-z_][\w.]*(?::[^\n]*|\r)?\n)?"
    rb"|  \+ Exception Group Traceback [^\n]*\n(?:(?!  \+ )[ \t][^\n]*\n)*)" % _INDENTED
)
_PYTHON_LINK = (
    rb"(?:During handling of the above exception, another exception occurred"
    rb"|The above exception was the direct cause of the following exception):\r?\n"
)
_PYTHON = rb"%s(?:\r?\n(?:\Z|%s(?:\Z|\r?\n(?:\Z|%s))))*" % (_PYTHON_TRACE, _PYTHON_LINK, _PYTHON_TRACE)

_GO_FRAME = (
    rb"(?:\t[^\n]*\n|created by [^\n]*\n|\.\.\.[^\n]*elided\.\.\.\r?\n"
    rb"|[^\s(][^\s(]*\([^\n]*\)\r?\n(?:\Z|(?=\t)))"
)
_GO_ROUTINE = rb"goroutine \d+ [^\n]*:\r?\n%s*" % _GO_FRAME
_GO = (
    rb"(?:panic: |fatal error: )[^\n]*\n(?:\t[^\n]*\n)*(?:\[signal [^\n]*\n)?"
    rb"(?:\r?\n(?:\Z|%s))*(?:exit status \d+\r?\n)?" % _GO_ROUTINE
)

#: The rules that have a name, for the option ``multiline``.
PRESETS: dict[str, Rule] = {
    "dotnet": _continued(rb"(?:[ \t]+at |[ \t]*---> |[ \t]*--- End of )"),
    "go": _Headed(re.compile(_GO), (b"panic: ", b"fatal error: ")),
    "indented": _continued(rb"[ \t]"),
    "java": _continued(
        rb"(?:[ \t]+(?:at |\.\.\. \d+ |Suppressed: |- locked |- waiting |eval at )"
        rb"|[ \t]*(?:Caused by|nested exception is): )",
    ),
    "node": _continued(rb"(?:[ \t]|[}\])]+[;,]?(?=\r?(?:\n|\Z)))"),
    "python": _Headed(re.compile(_PYTHON), (b"Traceback (most recent call last)",)),
    "ruby": _continued(rb"[ \t]+(?:from |\d+: from )"),
}


def start_rule(pattern: str) -> Rule:
    """Lines in which ``pattern`` (Python's syntax, on bytes) is found begin a message, all others continue it.

    Raises ValueError for a pattern that is empty or does not compile.
    """
    if not pattern:
        raise ValueError("an empty pattern, expected one that is found in the first line of a message")
    try:
        alone = re.compile(pattern.encode())
    except re.error as error:
        raise ValueError(f"cannot compile {pattern!r}: {error}") from None
    within = line_pattern(pattern)
    if within is None:
        return _ByLine(alone)
    return _continued(rb"(?!%s)" % within)


@dataclass(frozen=True, slots=True)
class _ByLine:
    """A start pattern that is asked line by line, because in a whole read it could match across lines."""

    start: re.Pattern[bytes]
    any_line_goes_on = True

    def spans(self, data: bytes, begin: int, end: int) -> Iterator[Span]:
        search = self.start.search
        head = here = begin
        several = False
        for line in data[begin:end].split(b"\n")[:-1]:
            if here > begin and search(line) is not None:
                if several:
                    yield Span(head, here)
                head, several = here, False
            elif here > begin:
                several = True
            here += len(line) + 1
        if several:
            yield Span(head, here)
