"""Log options: the values Docker's drivers accept, parsed by Docker's rules and refused in Docker's words.

Every driver validates through here, so a size, a flag or a duration means the same in each of them. What an
option does is the driver's business; tags are ``logdrivers/tag.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping

from logdrivers.driver import Info, OptionError

__all__ = [
    "CACHE_OPTIONS",
    "COMMON_OPTIONS",
    "EXTRA_OPTIONS",
    "SOURCE_OPTIONS",
    "check_known",
    "extra_attributes",
    "go_quote",
    "parse_bool",
    "parse_bytes_binary",
    "parse_bytes_decimal",
    "parse_duration",
    "parse_int",
]

#: What happens to a container's bytes before they become lines, whichever driver it has: parsed, with the
#: container's labels, by ``logdrivers/source/options.py``.
SOURCE_OPTIONS = frozenset(
    {
        "max-line-size",
        "multiline",
        "multiline-start",
        "multiline-timeout",
        "multiline-max-lines",
        "multiline-max-size",
        "rate-limit",
        "rate-burst",
        "rate-limit-policy",
    }
)

#: Accepted by every driver: those, and how the daemon couples a container to its driver. Ours writes to the
#: journal first, so neither mode blocks on a sink or drops; they are validated and otherwise without effect.
COMMON_OPTIONS = frozenset({"mode", "max-buffer-size"}) | SOURCE_OPTIONS

#: Docker's local copy for drivers that cannot be read. Ours always has one: accepted, without effect.
CACHE_OPTIONS = frozenset(
    {
        "cache-disabled",
        "cache-max-size",
        "cache-max-file",
        "cache-compress",
        "cache-labels",
        "cache-labels-regex",
        "cache-env",
        "cache-env-regex",
        "cache-tag",
    }
)

#: The options behind ``extra_attributes``, plus the tag.
EXTRA_OPTIONS = frozenset({"labels", "labels-regex", "env", "env-regex", "tag"})

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_PREFIXES = "kmgtp"
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d*)?|\.\d+) ?(?P<suffix>[^0-9. ]*)")
_DURATION_PART = re.compile(r"(?P<number>\d+(?:\.\d*)?|\.\d+)(?P<unit>[^0-9.]*)")
_DURATION_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "\u00b5s": 1e-6,
    "\u03bcs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}


def _parse_bytes(text: str, base: int) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise OptionError(f"invalid size: '{text}'")
    suffix = match["suffix"].lower()
    number = float(match["number"])
    if suffix in ("", "b"):
        return int(number)
    if suffix[0] not in _PREFIXES or suffix[1:] not in ("", "b", "ib"):
        raise OptionError(f"invalid suffix: '{suffix}'")
    return int(number * base ** (_PREFIXES.index(suffix[0]) + 1))


def parse_bytes_decimal(text: str) -> int:
    """Bytes of a size in powers of 1000, go-units' ``FromHumanSize``: ``10m`` is 10,000,000.

    Raises OptionError with go-units' words.
    """
    return _parse_bytes(text, 1000)


def parse_bytes_binary(text: str) -> int:
    """Bytes of a size in powers of 1024, go-units' ``RAMInBytes``: ``1m`` is 1,048,576.

    Raises OptionError with go-units' words.
    """
    return _parse_bytes(text, 1024)


def parse_bool(text: str) -> bool:
    """A flag in the words of Go's ``strconv.ParseBool``. Raises OptionError with its text."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise OptionError(f"strconv.ParseBool: parsing {go_quote(text)}: invalid syntax")


def parse_int(text: str) -> int:
    """A whole number as Go's ``strconv.Atoi`` reads it. Raises OptionError with its text."""
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise OptionError(f"strconv.Atoi: parsing {go_quote(text)}: invalid syntax")
    return int(text)


def parse_duration(text: str) -> float:
    """Seconds of a Go duration (``1h2m3.5s``, ``100ms``, ``0``). Raises OptionError with Go's text."""
    rest = text[1:] if text[:1] in ("+", "-") else text
    sign = -1.0 if text[:1] == "-" else 1.0
    if rest == "0":
        return 0.0
    if not rest:
        raise OptionError(f"time: invalid duration {go_quote(text)}")
    seconds = 0.0
    at = 0
    while at < len(rest):
        match = _DURATION_PART.match(rest, at)
        if match is None:
            raise OptionError(f"time: invalid duration {go_quote(text)}")
        unit = match["unit"]
        if not unit:
            raise OptionError(f"time: missing unit in duration {go_quote(text)}")
        if unit not in _DURATION_UNITS:
            raise OptionError(f"time: unknown unit {go_quote(unit)} in duration {go_quote(text)}")
        seconds += float(match["number"]) * _DURATION_UNITS[unit]
        at = match.end()
    if seconds > (2**63 - 1) / 1e9:
        raise OptionError(f"time: invalid duration {go_quote(text)}")
    return sign * seconds


def check_known(driver: str, options: Mapping[str, str], known: Collection[str]) -> None:
    """Refuse an option ``driver`` does not know, and check the ones every driver has.

    ``known`` need not list ``COMMON_OPTIONS`` or ``CACHE_OPTIONS``. Raises OptionError with Docker's words.
    """
    _check_mode(options)
    for key in options:
        if key in COMMON_OPTIONS or key in CACHE_OPTIONS or key in known:
            continue
        # Docker's gelf driver alone quotes the key the Go way, and local alone puts its name last.
        quoted = go_quote(key) if driver == "gelf" else f"'{key}'"
        whose = "log driver local" if driver == "local" else f"{driver} log driver"
        raise OptionError(f"unknown log opt {quoted} for {whose}")


def _check_mode(options: Mapping[str, str]) -> None:
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise OptionError(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise OptionError("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        try:
            parse_bytes_binary(options["max-buffer-size"])
        except OptionError as error:
            raise OptionError(f"error parsing option max-buffer-size: {error}") from None
    if options.get("cache-disabled"):
        try:
            parse_bool(options["cache-disabled"])
        except OptionError:
            raise OptionError(
                f"invalid value for option cache-disabled: {options['cache-disabled']}"
            ) from None


def extra_attributes(info: Info) -> dict[str, str]:
    """The container's labels and environment variables that its log options ask for.

    ``labels`` and ``env`` are comma lists, ``labels-regex`` and ``env-regex`` match anywhere in the name; a
    variable wins over a label of its name, what the container does not have is skipped. Raises OptionError
    for a pattern that does not compile.
    """
    return dict(_selected(info.options, "labels", info.labels)) | dict(
        _selected(info.options, "env", info.env)
    )


def _selected(
    options: Mapping[str, str], option: str, values: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    for name in options.get(option, "").split(","):
        if name in values:
            yield name, values[name]
    pattern = options.get(option + "-regex", "")
    if pattern:
        try:
            matches = re.compile(pattern).search
        except re.error as error:
            raise OptionError(f"{option}-regex: cannot compile {go_quote(pattern)}: {error}") from None
        for name, value in values.items():
            if matches(name):
                yield name, value


def go_quote(text: str) -> str:
    """``text`` as Go's ``%q`` prints it (the cases that occur in option values)."""
    return json.dumps(text, ensure_ascii=False)
