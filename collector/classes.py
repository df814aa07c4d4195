"""Scanning for regular expressions that have no literal: by the kinds of characters every match has in a row.

``[xyz][0-9]{2}[qj]`` is four sets of characters, one after the other. One table turns each byte of a text
into the sets it belongs to, and shifting and masking whole arrays tells where four in a row fit, at about a
nanosecond a byte: tens of times faster than trying the expression everywhere, and without its risks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as sre_parse  # type: ignore[attr-defined]
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from collector.query import Regex

__all__ = ["ClassRun", "class_run", "line_indexes", "literal_run", "places_of", "scan_classes"]

_WIDTH: Final = 8  # sets in a row that fit one byte
_MAX_COPIES: Final = 16
#: Ignored as too common: a run is worth scanning for when it lets less than this share of places through.
_ENOUGH: Final = 0.02

_Set = frozenset[int]
_ASCII: Final[_Set] = frozenset(range(128))
_UNESCAPED: Final[_Set] = frozenset(range(0x20, 0x7F)) - frozenset(b'"\\<>&/')
#: How often characters are met, roughly: digits and letters are common in logs, the rest is not.
_SHARE: Final = dict.fromkeys(range(48, 58), 0.02) | dict.fromkeys(range(97, 123), 0.025)


@dataclass(frozen=True, slots=True)
class ClassRun:
    """Sets in a row, the ``i``-th of them as bit ``i`` in the table of all bytes."""

    table: bytes
    length: int
    #: Whether no writer of JSON escapes any of the characters: it is then found in escaped text as well.
    unescaped: bool = False


@lru_cache(maxsize=64)
def class_run(regex: Regex) -> ClassRun | None:
    """The most selective run of sets every match contains; None if there is none worth it.

    Right for ASCII texts only.
    """
    parsed = sre_parse.parse(regex.pattern, re.IGNORECASE if regex.ignore_case else 0)
    ignore_case = bool(parsed.state.flags & re.IGNORECASE)
    runs: list[list[_Set]] = [[]]
    for one in _sets(parsed, ignore_case):
        if one is None:
            runs.append([])
        else:
            runs[-1].append(one)
    windows = [run[at : at + _WIDTH] for run in runs for at in range(max(1, len(run) - _WIDTH + 1))]
    best = min(windows, key=_passing)
    if not best or _passing(best) > _ENOUGH:
        return None
    return _run(best, unescaped=all(members <= _UNESCAPED for members in best))


def _run(sets: Sequence[Iterable[int]], unescaped: bool) -> ClassRun:
    table = bytearray(256)
    for index, members in enumerate(sets):
        for code in members:
            table[code] |= 1 << index
    return ClassRun(bytes(table), len(sets), unescaped)


@lru_cache(maxsize=64)
def literal_run(literals: frozenset[bytes]) -> ClassRun:
    """The sets that literals of one length (at most 8) have in their places."""
    return _run(list(zip(*literals, strict=True)), unescaped=True)


def _passing(run: Iterable[_Set]) -> float:
    share = 1.0
    for members in run:
        share *= min(1.0, sum(_SHARE.get(code, 0.005) for code in members))
    return share


def _sets(parsed: Any, ignore_case: bool) -> Iterable[_Set | None]:
    """Each character of a match as a set, None where the row is broken."""
    for operation, argument in parsed:
        if operation is sre.SUBPATTERN:
            folded = bool(argument[1] & re.IGNORECASE) or ignore_case
            yield from _sets(argument[3], folded and not argument[2] & re.IGNORECASE)
        elif operation is sre.ATOMIC_GROUP:
            yield from _sets(argument, ignore_case)
        elif operation in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            low, high, inner = argument
            each = list(_sets(inner, ignore_case))
            yield from each * min(low, _MAX_COPIES)
            if high != low or low > _MAX_COPIES:
                yield None
        elif operation is not sre.AT:
            yield _members(operation, argument, ignore_case)


def _members(operation: Any, argument: Any, ignore_case: bool) -> _Set | None:
    if operation is sre.ANY:
        return _ASCII
    if operation is sre.LITERAL:
        found = {argument} & _ASCII
    elif operation is sre.NOT_LITERAL:
        return _ASCII
    elif operation is sre.IN:
        negated = argument[0][0] is sre.NEGATE
        found = set[int]()
        for kind, what in argument:
            if kind is sre.LITERAL:
                found.add(what)
            elif kind is sre.RANGE:
                found.update(range(what[0], min(what[1], 127) + 1))
            elif kind is sre.CATEGORY:
                members = _CATEGORIES.get(what)
                if members is None:
                    return _ASCII
                found |= members
        if negated:
            return _ASCII
        found &= _ASCII
    else:
        return None
    if ignore_case:
        found |= {ord(other) for code in found for other in (chr(code).lower(), chr(code).upper())}
    return frozenset(found)


_CATEGORIES: Final = {
    sre.CATEGORY_DIGIT: frozenset(code for code in _ASCII if chr(code).isdigit()),
    sre.CATEGORY_SPACE: frozenset(code for code in _ASCII if chr(code).isspace()),
    sre.CATEGORY_WORD: frozenset(code for code in _ASCII if chr(code).isalnum() or code == 0x5F),
}


def scan_classes(text: bytes, run: ClassRun) -> list[int]:
    """Indexes of the lines of an ASCII text that hold the run, or a superset of them."""
    return line_indexes(text, places_of(text, run))


def places_of(text: bytes, run: ClassRun) -> npt.NDArray[np.int64]:
    """Where in the text the run fits."""
    kinds = np.frombuffer(text.translate(run.table), np.uint8)
    places = max(0, len(kinds) - run.length + 1)
    fits = kinds[:places] & 1
    for index in range(1, run.length):
        fits &= kinds[index : index + places] >> index
    return np.flatnonzero(fits)


def line_indexes(text: bytes, places: npt.NDArray[np.int64]) -> list[int]:
    """Indexes of the lines these places are in, rising, each once."""
    if not len(places):
        return []
    newlines = np.flatnonzero(np.frombuffer(text, np.uint8) == 10)
    lines: list[int] = np.unique(np.searchsorted(newlines, places)).tolist()
    return lines
