"""Fields of a line, found when a query asks: of its source, and in the line itself.

In the line: the record's attributes, JSON keys (``http.status`` is a key or a path), ``key=value`` pairs
(logfmt) and the combined log format of web servers. The source's fields are resolved once per source.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import orjson

from collector.levels import LEVEL_KEYS, NUMBER_KEYS, Level, level_of_number, level_of_text, level_of_word
from collector.sink import Source

__all__ = ["ACCESS_FIELDS", "SOURCE_FIELDS", "is_source_field", "line_field", "line_level", "source_field"]

#: Fields of the source; ``label.<key>`` is one too. ``stream`` is the line's own.
SOURCE_FIELDS: Final = frozenset(("container", "id", "image", "host", "input", "engine"))

#: What the common and combined log formats hold, by the names of the groups below.
ACCESS_FIELDS: Final = frozenset(
    ("client", "user", "method", "path", "protocol", "status", "bytes", "referer", "user_agent")
)
_ACCESS: Final = re.compile(
    rb"(?P<client>\S+) \S+ (?P<user>\S+) \[[^\]]*\] "
    rb'"(?:(?P<method>[A-Z]+) )?(?P<path>[^" ]*)(?: (?P<protocol>[^"]*))?" '
    rb"(?P<status>\d{3}) (?P<bytes>\d+|-)"
    rb'(?: "(?P<referer>[^"]*)" "(?P<user_agent>[^"]*)")?'
)
#: A virtual host or an address before the client, as some servers are configured, is passed over.
_ACCESS_AT: Final = re.compile(rb"\S+ \S+ \S+ \[")


def is_source_field(name: str) -> bool:
    """Whether the source alone answers for this field."""
    return name in SOURCE_FIELDS or name.startswith("label.")


def source_field(source: Source, name: str) -> tuple[str, ...]:
    """The values a source has for one of its fields, each as good as the others; none if it has none.

    ``image`` answers with and without its tag, ``id`` with the full one and the short one of 12 digits.
    """
    match name:
        case "container":
            values: tuple[str, ...] = (source.container_name,)
        case "id":
            values = (source.container_id, source.container_id[:12])
        case "image":
            values = (source.image, _untagged(source.image))
        case "host" | "input" | "engine":
            values = (getattr(source, name),)
        case _:
            values = (source.labels.get(name.removeprefix("label."), ""),)
    return tuple(dict.fromkeys(value for value in values if value))


def _untagged(image: str) -> str:
    name = image.partition("@")[0]
    slash, colon = name.rfind("/"), name.rfind(":")
    return name[:colon] if colon > slash else name


def line_field(line: bytes, attrs: Mapping[str, str], name: str) -> str | None:
    """The value of a field in a line, as text, or None. ``line`` is decoded, without its newline."""
    value = attrs.get(name)
    if value is not None:
        return value
    key = name.encode()
    if line[:1] == b"{" or line.lstrip()[:1] == b"{":
        found = _json_field(line, name)
        if found is not None:
            return found
    if key + b"=" in line:
        match = _logfmt(name).search(line)
        if match:
            return _logfmt_value(match)
    if name in ACCESS_FIELDS:
        return _access_field(line, name)
    return None


def line_level(line: bytes, attrs: Mapping[str, str]) -> Level | None:
    """The severity of a line: its attributes', its JSON or logfmt keys', or what its text says."""
    for key in LEVEL_KEYS:
        value = line_field(line, attrs, key)
        if value is not None:
            level = level_of_word(value)
            if level is None and key in NUMBER_KEYS and value.isdecimal():
                level = level_of_number(int(value))
            if level is not None:
                return level
    return level_of_text(line)


def _json_field(line: bytes, name: str) -> str | None:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(value, dict):
        return None
    if name in value:
        return _value_text(value[name])
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return _value_text(value)


def _value_text(value: object) -> str | None:
    """JSON's own spelling, text without quotes; null and what is not a scalar are no value."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, dict | list):
        return None
    return orjson.dumps(value).decode()


@lru_cache(maxsize=256)
def _logfmt(name: str) -> re.Pattern[bytes]:
    return re.compile(
        rb"(?:^|[\s,;|(\[{])" + re.escape(name.encode()) + rb'=(?:"((?:[^"\\]|\\.)*)"|([^\s,;|)\]}"]*))'
    )


def _logfmt_value(match: re.Match[bytes]) -> str:
    quoted, plain = match.groups()
    if quoted is None:
        return str(plain.decode("utf-8", "replace"))
    return re.sub(r"\\(.)", r"\1", quoted.decode("utf-8", "replace"))


def _access_field(line: bytes, name: str) -> str | None:
    at = _ACCESS_AT.search(line[:512])
    match = _ACCESS.match(line, at.start()) if at else None
    if match is None or match[name] is None:
        return None
    return match[name].decode("utf-8", "replace")
