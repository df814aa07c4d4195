"""``HEALTHCHECK`` among the instructions of ``docker import --change``: its options, and the command behind them.

The rules and the texts of refusals are those of Docker's Dockerfile parser.
"""

from __future__ import annotations

import json
import re
from typing import Any

from logdrivers.driver import OptionError
from logdrivers.options import parse_duration
from runtime.errors import BadRequest

__all__ = ["parse_healthcheck"]

_DURATIONS = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}
_OPTION = re.compile(r"--([a-z-]+)(?:=(\S*))?(?:\s+|\Z)")
_MINIMUM_NS = 1_000_000


def parse_healthcheck(text: str) -> dict[str, Any]:
    """The ``Healthcheck`` of an image from what follows the word; durations in nanoseconds. Raises BadRequest."""
    check: dict[str, Any] = {}
    while text.startswith("--"):
        match = _OPTION.match(text)
        if match is None or match[1] not in (*_DURATIONS, "retries"):
            raise BadRequest(f"Unknown flag: {(match[1] if match else text.split()[0].removeprefix('--'))}")
        if match[2] is None:
            raise BadRequest(f"Missing a value on flag: {match[1]}")
        _option(check, match[1], match[2])
        text = text[match.end() :]
    kind, _, rest = text.partition(" ")
    rest = rest.strip()
    if not kind:
        raise BadRequest("HEALTHCHECK requires at least one argument")
    if kind.upper() == "NONE":
        if rest:
            raise BadRequest("HEALTHCHECK NONE takes no arguments")
        return {"Test": ["NONE"]}
    if kind.upper() != "CMD":
        raise BadRequest(f"Unknown type {json.dumps(kind.upper())} in HEALTHCHECK (try CMD)")
    if not rest:
        raise BadRequest("Missing command after HEALTHCHECK CMD")
    return {"Test": _test(rest), **check}


def _option(check: dict[str, Any], name: str, value: str) -> None:
    if name == "retries":
        if not re.fullmatch(r"[+-]?[0-9]{1,9}", value):
            raise BadRequest(f"strconv.ParseInt: parsing {json.dumps(value)}: invalid syntax")
        if int(value) < 1:
            raise BadRequest(f"--retries must be at least 1 (not {int(value)})")
        check["Retries"] = int(value)
        return
    try:
        nanoseconds = round(parse_duration(value) * 1_000_000_000)
    except OptionError as error:
        raise BadRequest(str(error)) from error
    if nanoseconds and nanoseconds < _MINIMUM_NS:
        raise BadRequest(f'Interval "{name}" cannot be less than 1ms')
    check[_DURATIONS[name]] = nanoseconds


def _test(command: str) -> list[str]:
    if command.startswith("["):
        try:
            words = json.loads(command)
        except ValueError:
            words = None
        if isinstance(words, list) and words and all(isinstance(word, str) for word in words):
            return ["CMD", *words]
    return ["CMD-SHELL", command]
