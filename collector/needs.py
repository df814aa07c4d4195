"""What a line must contain to be able to match: the query's literals, for skipping and scanning.

Looking for them in the bytes as they are stored finds a superset of the matching lines, whatever escaping
the bytes went through; exactness is ``collector/matching.py``'s. Literals are therefore only those runs of
characters that every writer leaves as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as sre_parse  # type: ignore[attr-defined]
from typing import Any, Final

import numpy as np

from collector.fields import ACCESS_FIELDS, is_source_field
from collector.levels import ALIASES, NUMBER_KEYS, Level
from collector.query import And, Compare, Equals, Exists, Field, Node, Or, Regex, Text, Wildcard

__all__ = ["Clause", "fold", "needs"]

#: Characters some writer of JSON escapes: a literal ends there.
_ESCAPED: Final = frozenset('"\\<>&/\x7f\u2028\u2029\ufffd')
_FOLD: Final = 0x20
_MAX_ALTERNATIVES: Final = 64


def fold(data: bytes) -> bytes:
    """Upper and lower case brought together (as are some other pairs of bytes), at memory speed."""
    folded: bytes = (np.frombuffer(data, np.uint8) | _FOLD).tobytes()
    return folded


@dataclass(frozen=True, slots=True)
class Clause:
    """At least one of the literals is in every line that matches. Folded; none is empty."""

    literals: frozenset[bytes]
    #: Whether attributes beside the line count too: then the line's text alone decides nothing.
    anywhere: bool = False

    @property
    def strength(self) -> int:
        """How much it promises to skip: the length of the shortest literal, less when there are many."""
        return min(map(len, self.literals)) * 8 - len(self.literals)


def needs(node: Node) -> tuple[Clause, ...]:
    """The clauses that all hold for a matching line, the most selective first."""
    clauses = dict.fromkeys(_clauses(node))
    return tuple(sorted(clauses, key=lambda clause: -clause.strength))


def _clauses(node: Node) -> list[Clause]:
    match node:
        case Text(value):
            return _runs(value)
        case Wildcard(pieces):
            return [clause for piece in pieces for clause in _runs(piece)]
        case Regex(pattern, ignore_case):
            return _regex_clauses(pattern, ignore_case)
        case And(terms):
            return [clause for term in terms for clause in _clauses(term)]
        case Or(terms):
            return _either([_clauses(term) for term in terms])
        case Field(name, test) if not is_source_field(name) and name != "stream":
            return [Clause(clause.literals, anywhere=True) for clause in _field_clauses(name, test)]
    return []


def _runs(text: str, stops: frozenset[str] = _ESCAPED) -> list[Clause]:
    """The parts of ``text`` that are stored as they are, in either case."""
    found, run = [], ""
    for character in text:
        if character in stops or character < " " or (not character.isascii() and _has_case(character)):
            found.append(run)
            run = ""
        else:
            run += character
    found.append(run)
    return [Clause(frozenset((fold(run.encode("utf-8", "surrogatepass")),))) for run in found if run]


def _has_case(character: str) -> bool:
    return character.lower() != character or character.upper() != character


def _either(branches: Iterable[list[Clause]]) -> list[Clause]:
    """What alternatives have in common: one clause with the best of each, if each has one."""
    literals: set[bytes] = set()
    anywhere = False
    for branch in branches:
        if not branch:
            return []
        best = max(branch, key=lambda clause: clause.strength)
        literals |= best.literals
        anywhere |= best.anywhere
    return [Clause(frozenset(literals), anywhere)] if 0 < len(literals) <= _MAX_ALTERNATIVES else []


# --- fields in the line ---

#: In fields' values, where a line is JSON of its own, other characters than ASCII may be escaped too.
_VALUE_RUN: Final = re.compile(r"[A-Za-z0-9 _.:,;=@+*()\[\]{}#%!?~|^$'-]+")


def _field_clauses(name: str, test: object) -> list[Clause]:
    if name == "level":
        return _level_clauses(test)
    found = _status(test) if name == "status" else []
    if name not in ACCESS_FIELDS:
        found += _literal(name.rpartition(".")[2])
    match test:
        case Equals(value):
            found += _literal(value)
        case Wildcard(pieces):
            for piece in pieces:
                found += _literal(piece)
        case Exists() | Compare() | Regex():
            pass
    return found


def _status(test: object) -> list[Clause]:
    """A status is a key's value, or stands behind the quoted request in the combined log format."""
    match test:
        case Equals(value):
            starts = {value}
        case Compare(operator, value):
            wanted = [n for n in range(100, 1000) if _compare(n, operator, float(value))]
            starts = {str(n)[0] for n in wanted}
        case _:
            return []
    return [Clause(frozenset((b"status", *(fold(f'" {start}'.encode()) for start in starts))))]


def _literal(text: str) -> list[Clause]:
    return [clause for run in _VALUE_RUN.findall(text) for clause in _runs(run)]


def _level_clauses(test: object) -> list[Clause]:
    """The words for the wanted levels, or a key whose number may say it."""
    match test:
        case Equals(value):
            levels = [level for level in Level if level.name.lower() == value]
        case Compare(operator, value):
            levels = [level for level in Level if _compare(float(level), operator, float(value))]
        case _:
            return []
    words = {word.encode() for level in levels for word in ALIASES[level]}
    short = {word for word in words if not any(other in word for other in words if other != word)}
    literals = {*map(fold, short), *(fold(key.encode()) for key in NUMBER_KEYS)}
    least = {one for one in literals if not any(other in one for other in literals if other != one)}
    return [Clause(frozenset(least))] if levels else []


def _compare(left: float, operator: str, right: float) -> bool:
    if operator == "<":
        return left < right
    if operator == "<=":
        return left <= right
    return left > right if operator == ">" else left >= right


# --- regular expressions ---


def _regex_clauses(pattern: str, ignore_case: bool) -> list[Clause]:
    """The literals every match has, from the parsed expression."""
    return _sequence(sre_parse.parse(pattern, re.IGNORECASE if ignore_case else 0))


def _sequence(parsed: Any) -> list[Clause]:
    found: list[Clause] = []
    run = ""
    for operation, argument in _flat(parsed):
        if operation is sre.LITERAL:
            run += chr(argument)
            continue
        if operation is sre.AT:
            continue
        found += _runs(run)
        run = ""
        if operation is sre.BRANCH:
            found += _either([_sequence(branch) for branch in argument[1]])
        elif operation in _REPEATS and argument[0] > 0:
            found += _sequence(argument[2])
        elif operation is sre.IN and not any(kind is sre.NEGATE for kind, _ in argument):
            found += _set(argument)
    return found + _runs(run)


_REPEATS: Final = (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT)


def _flat(parsed: Any) -> list[tuple[Any, Any]]:
    """The operations in sequence, plain groups opened."""
    found: list[tuple[Any, Any]] = []
    for operation, argument in parsed:
        if operation is sre.SUBPATTERN:
            found += _flat(argument[3])
        elif operation is sre.ATOMIC_GROUP:
            found += _flat(argument)
        else:
            found.append((operation, argument))
    return found


def _set(argument: Any) -> list[Clause]:
    """A set of a few single characters, ``[45]``."""
    if not all(kind is sre.LITERAL for kind, _ in argument):
        return []
    return _either([_runs(chr(code)) for _, code in argument])
