"""What may happen to a container's bytes at the source: line length, messages of several lines, rate limit.

Log options, and labels ``taffrail.logs.<option>`` for each of them, parsed and checked in one place; what they
do is ``splitting.py``, ``multiline.py`` and ``rate_limit.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from logdrivers.block import MAX_LINE
from logdrivers.driver import OptionError
from logdrivers.options import SOURCE_OPTIONS, go_quote, parse_bytes_binary, parse_duration, parse_int
from logdrivers.source.multiline import PRESETS, Rule, start_rule

__all__ = ["LABEL_PREFIX", "Multiline", "RateLimit", "SourceOptions", "parse_source"]

#: A label of this name and an option behind it sets the option, unless the container's log options do.
LABEL_PREFIX = "taffrail.logs."

_N = TypeVar("_N", int, float)

_KIB, _MIB = 1 << 10, 1 << 20
_SMALLEST_BURST = 64 * _KIB
#: A burst is at least so long: each one that ends leaves a marker line.
_BURSTS_PER_SECOND = 10


@dataclass(frozen=True, slots=True)
class Multiline:
    """Which lines are one message, and when one is over though it might go on."""

    rule: Rule
    timeout_seconds: float = 1.0  #: without another line
    max_lines: int = 500
    max_bytes: int = _MIB


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What a container may write in the long run, and at once."""

    bytes_per_second: int
    burst_bytes: int
    wait: bool = False  #: the container's writes wait; otherwise whole lines are dropped and counted


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """All of it. The default is Docker's behaviour."""

    max_line: int = MAX_LINE  #: a line of so many bytes or more goes out in pieces of so many
    multiline: Multiline | None = None
    rate: RateLimit | None = None


def parse_source(options: Mapping[str, str], labels: Mapping[str, str] | None = None) -> SourceOptions:
    """The options of a container with these log options and labels; a log option wins over a label.

    Raises OptionError naming the option or label, the value and what was expected.
    """
    given: dict[str, tuple[str, str]] = {}
    for label, value in (labels or {}).items():
        if label.startswith(LABEL_PREFIX):
            option = label.removeprefix(LABEL_PREFIX)
            if option not in SOURCE_OPTIONS:
                raise OptionError(
                    f"unknown label '{label}', expected one of {_names()} behind {LABEL_PREFIX}"
                )
            given[option] = (f"label {label}", value)
    # One place decides whether and how lines are joined or limited: not half of it from a label.
    if options.keys() & {"multiline", "multiline-start"}:
        given.pop("multiline", None)
        given.pop("multiline-start", None)
    given |= {option: (option, options[option]) for option in SOURCE_OPTIONS if option in options}
    return SourceOptions(_size(given, "max-line-size", MAX_LINE, _KIB, _MIB), _multiline(given), _rate(given))


_Given = Mapping[str, tuple[str, str]]


def _names() -> str:
    return ", ".join(sorted(SOURCE_OPTIONS))


def _size(given: _Given, option: str, default: int, least: int, most: int | None = None) -> int:
    if option not in given:
        return default
    name, text = given[option]
    wanted = f"at least {_text(least)}" if most is None else f"{_text(least)} to {_text(most)}"
    try:
        size = parse_bytes_binary(text)
    except OptionError as error:
        raise OptionError(f"{name}: {error}, expected {wanted}") from None
    if size < least or (most is not None and size > most):
        raise OptionError(f"{name} is {text}, expected {wanted}")
    return size


def _text(size: int) -> str:
    for unit, letter in ((_MIB, "m"), (_KIB, "k")):
        if size % unit == 0:
            return f"{size // unit}{letter}"
    return str(size)


def _multiline(given: _Given) -> Multiline | None:
    if "multiline" in given and "multiline-start" in given:
        raise OptionError(f"{given['multiline'][0]} and {given['multiline-start'][0]} exclude each other")
    rule: Rule | None = None
    if "multiline" in given:
        name, preset = given["multiline"]
        rule = PRESETS.get(preset)
        if rule is None:
            raise OptionError(f"{name} is {go_quote(preset)}, expected one of {', '.join(sorted(PRESETS))}")
    elif "multiline-start" in given:
        name, pattern = given["multiline-start"]
        try:
            rule = start_rule(pattern)
        except ValueError as error:
            raise OptionError(f"{name}: {error}") from None
    timeout = _within(given, "multiline-timeout", 1.0, parse_duration, 0.01, 60.0, "10ms to 1m")
    lines = _within(given, "multiline-max-lines", 500, parse_int, 2, 10_000, "2 to 10000")
    size = _size(given, "multiline-max-size", _MIB, _KIB, _MIB)
    if rule is None:
        for option in ("multiline-timeout", "multiline-max-lines", "multiline-max-size"):
            if option in given:
                raise OptionError(f"{given[option][0]} needs multiline or multiline-start")
        return None
    return Multiline(rule, timeout, lines, size)


def _within(
    given: _Given, option: str, default: _N, parse: Callable[[str], _N], least: _N, most: _N, expected: str
) -> _N:
    """A number between two others. Raises OptionError naming the option, its value and what is expected."""
    if option not in given:
        return default
    name, text = given[option]
    try:
        value = parse(text)
    except OptionError as error:
        raise OptionError(f"{name}: {error}, expected {expected}") from None
    if not least <= value <= most:
        raise OptionError(f"{name} is {text}, expected {expected}")
    return value


def _rate(given: _Given) -> RateLimit | None:
    if "rate-limit" not in given:
        for option in ("rate-burst", "rate-limit-policy"):
            if option in given:
                raise OptionError(f"{given[option][0]} needs rate-limit")
        return None
    rate = _size(given, "rate-limit", 0, _KIB)
    least = max(_SMALLEST_BURST, -(-rate // _BURSTS_PER_SECOND))
    burst = _size(given, "rate-burst", max(rate, _SMALLEST_BURST), least)
    name, policy = given.get("rate-limit-policy", ("", "drop"))
    if policy not in ("drop", "wait"):
        raise OptionError(f"{name} is {go_quote(policy)}, expected drop or wait")
    return RateLimit(rate, burst, policy == "wait")
