"""The query language: text to a tree that the local store, Elasticsearch and Graylog all answer.

``container:web* level:error "timed out" -healthz status:>=500``: terms are joined by AND; OR, NOT (or a
leading ``-``) and parentheses are as expected. Free text and phrases are substrings of the line, upper and
lower case alike; ``*`` stands for any characters; ``/…/`` is a regular expression (``/…/i`` for any case).
``field:value`` compares the whole value (``*`` allowed), ``field:>=n`` numbers (or levels), ``field:*`` asks
whether there is one. Which fields there are is ``collector/fields.py``; executing is ``collector/search.py``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from collector.levels import ALIASES, Level, level_of_word

__all__ = [
    "All",
    "And",
    "Compare",
    "Equals",
    "Exists",
    "Field",
    "Node",
    "Not",
    "Or",
    "Query",
    "QueryError",
    "Regex",
    "Test",
    "Text",
    "Wildcard",
    "parse",
]

Operator = Literal["<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Text:
    """The line contains this text; upper and lower case are alike."""

    value: str


@dataclass(frozen=True, slots=True)
class Equals:
    """The whole value is this text; upper and lower case are alike."""

    value: str


@dataclass(frozen=True, slots=True)
class Wildcard:
    """The pieces follow each other with anything between; upper and lower case are alike.

    ``("web", "")`` is ``web*``. As free text it is looked for anywhere in the line; as a field's test it is
    the whole value, so that an empty first (last) piece means: anything before (behind).
    """

    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Regex:
    """A regular expression in Python's syntax, found anywhere in the line (or value)."""

    pattern: str
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class Compare:
    """The value is a number and stands in this relation; a level when the field is ``level``."""

    operator: Operator
    value: float | Level


@dataclass(frozen=True, slots=True)
class Exists:
    """There is a value."""


Test = Equals | Wildcard | Regex | Compare | Exists


@dataclass(frozen=True, slots=True)
class Field:
    """A field passes a test. ``message`` is the line itself."""

    name: str
    test: Test


@dataclass(frozen=True, slots=True)
class Not:
    """The term does not hold."""

    term: Node


@dataclass(frozen=True, slots=True)
class And:
    """All terms hold; at least two."""

    terms: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One of the terms holds; at least two."""

    terms: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class All:
    """Every line."""


Node = All | Text | Wildcard | Regex | Field | Not | And | Or


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed query."""

    text: str  #: as it was typed
    root: Node


class QueryError(ValueError):
    """A query that cannot be read: where, and what was expected there."""

    def __init__(self, text: str, position: int, message: str) -> None:
        found = repr(text[position : position + 20]) if position < len(text) else "the end of the query"
        super().__init__(f"{message}; found {found} at character {position + 1} of {text!r}")
        self.position = position  #: characters before the place


#: Other names for our own fields: ECS names, and the word people say for the input.
_NAMES: Final = {
    "container.name": "container",
    "container.id": "id",
    "container.image.name": "image",
    "host.name": "host",
    "log.level": "level",
    "driver": "input",
}
_FIELD: Final = re.compile(r"([A-Za-z_@][\w.@/-]*):(?!//)")
_LABEL: Final = re.compile(r'label\.(?:"((?:[^"\\]|\\.)*)"|([^\s:()"]+)):')
_OPERATOR: Final = re.compile(r">=|<=|>|<")
_NUMBER: Final = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d{1,3})?", re.ASCII)
_WORD_END: Final = re.compile(r'[\s()"]')
_SPACE: Final = re.compile(r"\s*")
_MAX_DEPTH: Final = 64
_MAX_CHARACTERS: Final = 8192


def parse(text: str) -> Query:
    """Read a query. Raises QueryError naming the place and what was expected there."""
    if len(text) > _MAX_CHARACTERS:
        raise QueryError(
            text[:40], 0, f"a query of {len(text)} characters, at most {_MAX_CHARACTERS} are read"
        )
    return Query(text, _Parser(text).query())


class _Parser:
    """One pass over the text, one character ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def query(self) -> Node:
        self._skip()
        if self._at == len(self._text):
            return All()
        node = self._or(self._term)
        if self._at < len(self._text):
            raise self._error('expected a term, found ")" without "("')
        return node

    # --- structure ---

    def _or(self, leaf: Callable[[], Node]) -> Node:
        terms = [self._and(leaf)]
        while self._keyword("OR"):
            terms.append(self._and(leaf))
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def _and(self, leaf: Callable[[], Node]) -> Node:
        terms = [self._not(leaf)]
        while self._at < len(self._text) and self._text[self._at] != ")" and not self._is_keyword("OR"):
            self._keyword("AND")
            terms.append(self._not(leaf))
        return terms[0] if len(terms) == 1 else And(tuple(terms))

    def _not(self, leaf: Callable[[], Node]) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._error(f"nested deeper than {_MAX_DEPTH} levels")
        try:
            if self._keyword("NOT"):
                return _negate(self._not(leaf))
            if (
                self._peek() == "-"
                and self._at + 1 < len(self._text)
                and not self._text[self._at + 1].isspace()
            ):
                self._at += 1
                return _negate(self._not(leaf))
            if self._peek() == "(":
                return self._group(leaf)
            for word in ("AND", "OR"):
                if self._is_keyword(word):
                    raise self._error(f"expected a term before {word} (quote it to search for the word)")
            return leaf()
        finally:
            self._depth -= 1

    def _group(self, leaf: Callable[[], Node]) -> Node:
        opened = self._at
        self._at += 1
        self._skip()
        node = self._or(leaf)
        if self._peek() != ")":
            raise QueryError(self._text, opened, 'expected a ")" for this "("')
        self._at += 1
        self._skip()
        return node

    # --- terms ---

    def _term(self) -> Node:
        match = _LABEL.match(self._text, self._at)
        if match:
            name = "label." + (_unescape(match[1]) if match[1] is not None else match[2])
            return self._field(name, match.end())
        match = _FIELD.match(self._text, self._at)
        if match:
            return self._field(_NAMES.get(match[1], match[1]), match.end())
        value = self._value()
        if value == Wildcard(("", "")):
            return All()
        return Text(value) if isinstance(value, str) else value

    def _field(self, name: str, value_at: int) -> Node:
        started, self._at = self._at, value_at
        if self._peek() == "(":
            return self._group(lambda: _field_node(name, self._test(name)))
        if self._at == len(self._text) or self._text[self._at].isspace() or self._text[self._at] == ")":
            shown = self._text[started : value_at - 1]
            raise self._error(f'expected a value for the field {shown} (or quote it: "{shown}:")')
        return _field_node(name, self._test(name))

    def _test(self, name: str) -> Test:
        match = _OPERATOR.match(self._text, self._at)
        if match:
            operator: Operator = match[0]  # type: ignore[assignment]
            self._at = match.end()
            return Compare(operator, self._operand(name))
        started = self._at
        quoted = self._peek() == '"'
        value = self._value()
        if isinstance(value, str):
            if name == "level":
                return Equals(self._level(value, started).name.lower())
            return Equals(value)
        if not quoted and isinstance(value, Wildcard) and value.pieces == ("", ""):
            return Exists()
        return value

    def _operand(self, name: str) -> float | Level:
        started = self._at
        value = self._value() if self._peek() not in ("", ")") and not self._peek().isspace() else ""
        if isinstance(value, str) and name == "level":
            return self._level(value, started)
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            return float(value)
        raise QueryError(self._text, started, f"expected a number to compare {name} with")

    def _level(self, word: str, at: int) -> Level:
        level = level_of_word(word)
        if level is not None:
            return level
        names = [names[0] for names in ALIASES.values()]
        near = difflib.get_close_matches(word.lower(), [w for words in ALIASES.values() for w in words], 1)
        hint = f", perhaps {near[0]}" if near else ""
        raise QueryError(self._text, at, f"expected a level, one of {' '.join(names)}{hint}")

    def _value(self) -> str | Wildcard | Regex:
        character = self._peek()
        if character == '"':
            return self._phrase()
        if character == "/" and (regex := self._regex()):
            return regex
        return self._word()

    def _phrase(self) -> str:
        opened = self._at
        at = opened + 1
        while at < len(self._text) and self._text[at] != '"':
            at += 2 if self._text[at] == "\\" else 1
        if at >= len(self._text):
            raise QueryError(self._text, opened, 'expected a closing "')
        if at == opened + 1:
            raise QueryError(self._text, opened, "expected a text between the quotes")
        self._at = at + 1
        self._skip()
        return _unescape(self._text[opened + 1 : at])

    def _regex(self) -> Regex | None:
        """``/…/`` or ``/…/i`` up to a space; a path such as ``/api/v1`` is a word and None here."""
        opened = at = self._at
        at += 1
        while at < len(self._text) and self._text[at] != "/":
            at += 2 if self._text[at] == "\\" else 1
        end = at + 1
        if at >= len(self._text) or at == opened + 1:
            return None
        ignore_case = self._text[end : end + 1] == "i"
        end += ignore_case
        if end < len(self._text) and not self._text[end].isspace() and self._text[end] != ")":
            return None
        pattern = self._text[opened + 1 : at].replace("\\/", "/")
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            place = opened + 1 + (getattr(error, "pos", 0) or 0)
            raise QueryError(self._text, place, f"expected a regular expression: {error}") from error
        self._at = end
        self._skip()
        return Regex(pattern, ignore_case)

    def _word(self) -> str | Wildcard:
        started = self._at
        pieces = [""]
        at = started
        while at < len(self._text) and not _WORD_END.match(self._text, at):
            character = self._text[at]
            if character == "\\" and at + 1 < len(self._text):
                at += 1
                pieces[-1] += self._text[at]
            elif character == "*":
                if len(pieces) == 1 or pieces[-1]:
                    pieces.append("")
            else:
                pieces[-1] += character
            at += 1
        if at == started:
            raise self._error("expected a term")
        if at < len(self._text) and self._text[at] == '"':
            raise QueryError(self._text, at, "expected a space before the quote")
        self._at = at
        self._skip()
        return pieces[0] if len(pieces) == 1 else Wildcard(tuple(pieces))

    # --- characters ---

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip(self) -> None:
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()

    def _is_keyword(self, word: str) -> bool:
        end = self._at + len(word)
        follows = self._text[end : end + 1]
        return self._text.startswith(word, self._at) and (not follows or follows.isspace() or follows in "()")

    def _keyword(self, word: str) -> bool:
        if not self._is_keyword(word):
            return False
        self._at += len(word)
        self._skip()
        return True

    def _error(self, message: str) -> QueryError:
        return QueryError(self._text, self._at, message)


def _negate(node: Node) -> Node:
    return node.term if isinstance(node, Not) else Not(node)


def _field_node(name: str, test: Test) -> Node:
    """``message`` is the line: its value is a substring, as in free text."""
    if name == "message":
        if isinstance(test, Equals):
            return Text(test.value)
        if isinstance(test, Wildcard | Regex):
            return test
        if isinstance(test, Exists):
            return All()
    return Field(name, test)


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
