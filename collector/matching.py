"""Whether decoded lines match a query, exactly, a batch of lines at a time.

A batch belongs to one source, so whatever the source answers (container, image, labels) is decided before
the first line is read. Regular expressions run in ``collector/regex.py``, outside this process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from collector.fields import is_source_field, line_field, line_level, source_field
from collector.levels import Level
from collector.query import (
    All,
    And,
    Compare,
    Equals,
    Exists,
    Field,
    Node,
    Not,
    Or,
    Regex,
    Test,
    Text,
    Wildcard,
)
from collector.segments.chunk import Line
from collector.sink import Source

__all__ = ["RegexMatcher", "for_source", "select"]

#: Tells for each text whether the expression is found in it.
RegexMatcher = Callable[[Regex, Sequence[bytes]], Sequence[bool]]

_Characters = TypeVar("_Characters", str, bytes)


def for_source(node: Node, source: Source, regex: RegexMatcher) -> Node | None:
    """The query as it is for one source's lines: without what the source decides; None if none can match."""
    decided = _decide(node, source, regex)
    if isinstance(decided, bool):
        return All() if decided else None
    return decided


def _decide(node: Node, source: Source, regex: RegexMatcher) -> Node | bool:
    match node:
        case Field(name, test) if is_source_field(name):
            values = source_field(source, name)
            if isinstance(test, Equals) and name == "id":
                return bool(test.value) and source.container_id.lower().startswith(test.value.lower())
            return any(_test_values(test, list(values), regex))
        case Not(term):
            inner = _decide(term, source, regex)
            return not inner if isinstance(inner, bool) else Not(inner)
        case And(terms):
            return _join([_decide(term, source, regex) for term in terms], And, False)
        case Or(terms):
            return _join([_decide(term, source, regex) for term in terms], Or, True)
        case All():
            return True
    return node


def _join(terms: Sequence[Node | bool], kind: type[And] | type[Or], decisive: bool) -> Node | bool:
    if any(term is decisive for term in terms):
        return decisive
    left = tuple(term for term in terms if not isinstance(term, bool))
    if not left:
        return not decisive
    return left[0] if len(left) == 1 else kind(left)


def select(node: Node, lines: Sequence[Line], regex: RegexMatcher) -> list[int]:
    """Indexes of the lines that match, rising."""
    return _select(node, lines, list(range(len(lines))), regex)


def _select(node: Node, lines: Sequence[Line], among: list[int], regex: RegexMatcher) -> list[int]:
    if not among:
        return among
    match node:
        case All():
            return among
        case And(terms):
            for term in sorted(terms, key=_cost):
                among = _select(term, lines, among, regex)
            return among
        case Or(terms):
            found: set[int] = set()
            for term in sorted(terms, key=_cost):
                found.update(_select(term, lines, [i for i in among if i not in found], regex))
            return [i for i in among if i in found]
        case Not(term):
            out = set(_select(term, lines, among, regex))
            return [i for i in among if i not in out]
        case Text(value):
            return _contains((value,), lines, among)
        case Wildcard(pieces):
            return _contains(tuple(piece for piece in pieces if piece), lines, among)
        case Regex():
            found_in = regex(node, [lines[i].text for i in among])
            return [i for i, found in zip(among, found_in, strict=True) if found]
        case Field(name, test):
            return _field(name, test, lines, among, regex)
    raise AssertionError(node)


def _cost(node: Node) -> int:
    """Terms in the order of what a line costs: text, fields, expressions."""
    match node:
        case Text() | Wildcard() | All():
            return 0
        case Field(_, Regex()) | Regex():
            return 3
        case Not(term):
            return _cost(term)
        case And(terms) | Or(terms):
            return max(map(_cost, terms))
    return 1


def _contains(pieces: tuple[str, ...], lines: Sequence[Line], among: list[int]) -> list[int]:
    """Lines that hold the pieces one after the other, in either case."""
    if all(piece.isascii() for piece in pieces):
        wanted = [piece.lower().encode() for piece in pieces]
        if len(wanted) == 1:
            (only,) = wanted
            return [i for i in among if only in lines[i].text.lower()]
        return [i for i in among if _in_sequence(wanted, lines[i].text.lower())]
    texts = [piece.lower() for piece in pieces]
    return [i for i in among if _in_sequence(texts, lines[i].text.decode("utf-8", "replace").lower())]


def _in_sequence(pieces: Sequence[_Characters], text: _Characters) -> bool:
    at = 0
    for piece in pieces:
        at = text.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return True


def _field(name: str, test: Test, lines: Sequence[Line], among: list[int], regex: RegexMatcher) -> list[int]:
    if name == "level":
        levels = [line_level(lines[i].text, lines[i].attrs) for i in among]
        if isinstance(test, Compare):
            return [i for i, level in zip(among, levels, strict=True) if _compared(level, test)]
        values = [None if level is None else level.name.lower() for level in levels]
    elif name == "stream":
        values = [lines[i].stream.text or None for i in among]
    else:
        values = [line_field(lines[i].text, lines[i].attrs, name) for i in among]
    there = [i for i, value in zip(among, values, strict=True) if value is not None]
    passed = _test_values(test, [value for value in values if value is not None], regex)
    return [i for i, is_so in zip(there, passed, strict=True) if is_so]


def _test_values(test: Test, values: list[str], regex: RegexMatcher) -> Sequence[bool]:
    match test:
        case Exists():
            return [True] * len(values)
        case Equals(wanted):
            folded = wanted.lower()
            return [value.lower() == folded for value in values]
        case Wildcard(pieces):
            lowered = [piece.lower() for piece in pieces]
            return [_whole(lowered, value.lower()) for value in values]
        case Compare():
            return [_compared(_number(value), test) for value in values]
        case Regex():
            return regex(test, [value.encode("utf-8", "replace") for value in values]) if values else []


def _whole(pieces: Sequence[str], value: str) -> bool:
    """Whether the pieces, with anything between, are the whole value."""
    first, *middle, last = pieces
    end = len(value) - len(last)
    if not (value.startswith(first) and value.endswith(last) and end >= len(first)):
        return False
    return _in_sequence(middle, value[len(first) : end])


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _compared(value: float | Level | None, test: Compare) -> bool:
    if value is None:
        return False
    match test.operator:
        case "<":
            return value < test.value
        case "<=":
            return value <= test.value
        case ">":
            return value > test.value
        case ">=":
            return value >= test.value
