"""The expression after ``--filter``: ``cpu > 2 and name:web*`` decides which rows of statistics are shown.

Weave Scope's searches (``cpu > 4%``, ``memory < 10mb``) with and, or, not and parentheses. It also holds
the names of the numbers that rows can be sorted by; where rows come from and how they look is others'.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import translate
from typing import Final, NamedTuple

__all__ = ["NUMBERS", "TEXTS", "FilterError", "Quantity", "Row", "field_value", "number_of", "parse_filter"]

#: One container of ``GET /api/v1/stats``.
Row = Mapping[str, object]
Test = Callable[[Row], bool]


class FilterError(ValueError):
    """The expression cannot be read; the message has the position (from 1) and what was expected there."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number of a row: the sum of some keys, in percent, bytes, bytes a second or a plain count."""

    keys: tuple[str, ...]
    unit: str  #: ``%``, ``B``, ``B/s`` or ""
    percent_key: str = ""  #: what is compared with a value in percent, where ``unit`` is not ``%``


_RX, _TX = "net_rx_bytes", "net_tx_bytes"
_READ, _WRITE = "block_read_bytes", "block_write_bytes"


def _rate(*keys: str) -> Quantity:
    return Quantity(tuple(f"{key}_per_second" for key in keys), "B/s")


#: Numbers by the names a person types.
NUMBERS: Final[Mapping[str, Quantity]] = {
    "cpu": Quantity(("cpu_percent",), "%"),
    "memory": Quantity(("memory_usage_bytes",), "B", "memory_percent"),
    "mem": Quantity(("memory_usage_bytes",), "B", "memory_percent"),
    "memory%": Quantity(("memory_percent",), "%"),
    "mem%": Quantity(("memory_percent",), "%"),
    "memory.limit": Quantity(("memory_limit_bytes",), "B"),
    "net": _rate(_RX, _TX),
    "rx": _rate(_RX),
    "tx": _rate(_TX),
    "block": _rate(_READ, _WRITE),
    "read": _rate(_READ),
    "write": _rate(_WRITE),
    "net.total": Quantity((_RX, _TX), "B"),
    "rx.total": Quantity((_RX,), "B"),
    "tx.total": Quantity((_TX,), "B"),
    "block.total": Quantity((_READ, _WRITE), "B"),
    "read.total": Quantity((_READ,), "B"),
    "write.total": Quantity((_WRITE,), "B"),
    "pids": Quantity(("pids",), ""),
}
#: Words of a row; ``label.KEY`` is one too.
TEXTS: Final = ("name", "image", "id", "state", "engine", "health", "host")

_COMPARE: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "==": operator.eq,
    ":": operator.eq,
    "!=": operator.ne,
}
_OPERATOR = re.compile(r">=|<=|!=|==|>|<|=|:")
_FIELD = re.compile(r"label\.[^\s()<>=!:\"']+|[^\s()<>=!:\"'.%]+(?:\.[^\s()<>=!:\"'.%]+)*%?", re.IGNORECASE)
_QUOTED = re.compile(r"\"([^\"]*)\"|'([^']*)'")
_VALUE = re.compile(r"[^\s()\"']+")
_NUMBER = re.compile(r"([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)\s*(%|[kmgtp]?i?b?(?:/s)?)", re.IGNORECASE)
_DEEPEST = 100


def number_of(row: Row, quantity: Quantity) -> float | None:
    """The number in the quantity's unit; None where the row has no sample."""
    return _sum(row, quantity.keys)


def field_value(row: Row, field: str) -> str:
    """A text field of a row, "" where it has none. ``field`` is one of ``TEXTS`` or ``label.KEY``."""
    if field.startswith("label."):
        labels = row.get("labels")
        return str(labels.get(field[6:], "")) if isinstance(labels, Mapping) else ""
    return str(row.get(field) or "")


def parse_filter(text: str) -> Test:
    """The expression as a test of rows. Raises FilterError.

    A number that a row does not have (a container without a sample) compares as false with everything.
    """
    return _Parser(text).whole()


def _sum(row: Row, keys: tuple[str, ...]) -> float | None:
    total = 0.0
    for key in keys:
        value = row.get(key)
        if not isinstance(value, int | float) or row.get("time_ns") == 0:
            return None
        total += value
    return total


class _Value(NamedTuple):
    text: str
    position: int
    quoted: bool


class _Parser:
    """Recursive descent: or, and (also by standing side by side), not, a comparison."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def whole(self) -> Test:
        self._blank()
        if self._at == len(self._text):
            raise self._error("the expression is empty, expected something like 'cpu > 2 and name:web*'")
        test = self._either()
        if self._at < len(self._text):
            raise self._error("expected 'and', 'or' or the end")
        return test

    def _either(self) -> Test:
        tests = [self._both()]
        while self._word("or"):
            tests.append(self._both())
        return tests[0] if len(tests) == 1 else lambda row: any(test(row) for test in tests)

    def _both(self) -> Test:
        tests = [self._negated()]
        while self._word("and") or not (self._end() or self._peek("or")):
            tests.append(self._negated())
        return tests[0] if len(tests) == 1 else lambda row: all(test(row) for test in tests)

    def _negated(self) -> Test:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._error(f"more than {_DEEPEST} levels of parentheses and 'not'")
        try:
            if self._word("not"):
                test = self._negated()
                return lambda row: not test(row)
            if self._take("("):
                test = self._either()
                if not self._take(")"):
                    raise self._error("expected ')'")
                return test
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Test:
        start = self._at
        found = _FIELD.match(self._text, start)
        name = found[0] if found else ""
        plain = name.lower()
        if plain.startswith("label."):
            plain = "label." + name[6:]
        known = plain in NUMBERS or plain in TEXTS or plain.startswith("label.")
        if not found or name in ("and", "or") or not known:
            raise self._unknown(name, start)
        self._at = found.end()
        self._blank()
        sign = _OPERATOR.match(self._text, self._at)
        expected = "> >= < <= = != or :" if plain in NUMBERS else "= != or :"
        if sign is None or (plain not in NUMBERS and sign[0] in (">", ">=", "<", "<=")):
            raise self._error(f"expected one of {expected} after {name!r}")
        self._at = sign.end()
        value = self._value(f"{name} {sign[0]}")
        if plain in NUMBERS:
            return _numeric(NUMBERS[plain], name, sign[0], value)
        return _textual(plain, sign[0], value.text)

    def _value(self, after: str) -> _Value:
        self._blank()
        start = self._at
        if quoted := _QUOTED.match(self._text, start):
            self._at = quoted.end()
            value = _Value(quoted[1] if quoted[1] is not None else quoted[2], start, True)
        elif start < len(self._text) and self._text[start] in "\"'":
            raise self._error(f"expected the closing {self._text[start]} of the value")
        elif plain := _VALUE.match(self._text, start):
            self._at = plain.end()
            value = _Value(plain[0], start, False)
        else:
            raise self._error(f"expected a value after {after!r}")
        self._blank()
        return value

    def _unknown(self, name: str, start: int) -> FilterError:
        self._at = start
        names = [*NUMBERS, *TEXTS, "label.KEY"]
        if not name or name in ("and", "or"):
            return self._error("expected a field, like cpu, memory or name")
        near = difflib.get_close_matches(name.lower(), names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(names)}"
        return self._error(f"no field {name!r}, {hint}")

    def _error(self, message: str) -> FilterError:
        return _error(message, self._at, self._text[self._at :])

    def _blank(self) -> None:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1

    def _end(self) -> bool:
        return self._at == len(self._text) or self._text[self._at] == ")"

    def _peek(self, word: str) -> bool:
        return re.compile(rf"{word}(?=[\s(]|$)", re.IGNORECASE).match(self._text, self._at) is not None

    def _word(self, word: str) -> bool:
        found = self._peek(word)
        if found:
            self._at += len(word)
            self._blank()
        return found

    def _take(self, sign: str) -> bool:
        found = self._text.startswith(sign, self._at)
        if found:
            self._at += 1
            self._blank()
        return found


def _error(message: str, position: int, rest: str) -> FilterError:
    found = f", found {rest.split()[0][:40]!r}" if rest.strip() else ", found the end"
    if message.startswith(("the expression", "no field", "more than")):
        found = ""
    return FilterError(f"at position {position + 1}: {message}{found}")


def _numeric(quantity: Quantity, name: str, sign: str, value: _Value) -> Test:
    match = _NUMBER.fullmatch(value.text)
    percent = bool(match and match[2] == "%")
    unit = match[2].lower().removesuffix("/s") if match else ""
    a_second = bool(match and match[2].lower().endswith("/s"))
    wrong = (
        match is None
        or (percent and quantity.unit != "%" and not quantity.percent_key)
        or (unit not in ("", "%") and quantity.unit not in ("B", "B/s"))
        or (a_second and quantity.unit != "B/s")
    )
    if match is None or wrong:
        forms = {"%": "2 or 2%", "B": "10mb or 2GiB", "B/s": "10kb or 1mb/s", "": "20"}[quantity.unit]
        forms += ", or 50%" if quantity.percent_key else ""
        raise _error(f"{name} is compared with a number like {forms}", value.position, value.text)
    keys = (quantity.percent_key,) if percent and quantity.percent_key else quantity.keys
    number = float(match[1]) * (1024.0 ** (" kmgtp".index(unit[0])) if unit and unit[0] in "kmgtp" else 1.0)
    compare = _COMPARE[sign]

    def test(row: Row) -> bool:
        found = _sum(row, keys)
        return found is not None and compare(found, number)

    return test


def _textual(field: str, sign: str, value: str) -> Test:
    if sign == ":":
        glob = re.compile(translate(value), re.IGNORECASE)
        if field == "id":  # ids are typed by their beginning
            return lambda row: (
                glob.fullmatch(field_value(row, field)) is not None
                or field_value(row, field).startswith(value)
            )
        return lambda row: glob.fullmatch(field_value(row, field)) is not None
    if sign == "!=":
        return lambda row: field_value(row, field) != value
    return lambda row: field_value(row, field) == value
