"""Severity levels: the names programs give them, brought to one ordered set.

Words and numbers come from syslog (RFC 5424, which GELF uses), Python, Java, Go, Rust and Node loggers.
"""

from __future__ import annotations

import enum
import re
from typing import Final

__all__ = [
    "ALIASES",
    "LEVEL_KEYS",
    "NUMBER_KEYS",
    "Level",
    "level_of_number",
    "level_of_text",
    "level_of_word",
]


class Level(enum.IntEnum):
    """Severity, rising. The name in lower case is what queries say and hits show."""

    TRACE = 5
    DEBUG = 10
    INFO = 20
    NOTICE = 25
    WARN = 30
    ERROR = 40
    CRITICAL = 50
    ALERT = 60
    EMERGENCY = 70


#: Every word for each level, in lower case, the usual one first.
ALIASES: Final[dict[Level, tuple[str, ...]]] = {
    Level.TRACE: ("trace", "trc", "verbose", "finest", "finer"),
    Level.DEBUG: ("debug", "dbg", "fine"),
    Level.INFO: ("info", "inf", "information", "informational"),
    Level.NOTICE: ("notice",),
    Level.WARN: ("warn", "warning", "wrn"),
    Level.ERROR: ("error", "err", "severe"),
    Level.CRITICAL: ("critical", "crit", "fatal", "ftl", "panic", "dpanic"),
    Level.ALERT: ("alert",),
    Level.EMERGENCY: ("emergency", "emerg"),
}

_WORDS: Final = {word: level for level, words in ALIASES.items() for word in words}

#: Keys under which structured lines keep their level, the first one present counts.
LEVEL_KEYS: Final = (
    "level",
    "severity",
    "lvl",
    "log.level",
    "loglevel",
    "levelname",
    "severity_text",
    "@l",
)

#: Those among them that may hold a number (syslog's, or that of Node's loggers).
NUMBER_KEYS: Final = ("level", "severity")

#: RFC 5424: 0 emergency … 7 debug.
_SYSLOG: Final = (
    Level.EMERGENCY,
    Level.ALERT,
    Level.CRITICAL,
    Level.ERROR,
    Level.WARN,
    Level.NOTICE,
    Level.INFO,
    Level.DEBUG,
)


def level_of_word(word: str) -> Level | None:
    """The level a word names, in any case, or None."""
    return _WORDS.get(word.lower())


def level_of_number(number: int) -> Level | None:
    """0 to 7 are syslog's; 10, 20 … 60 are those of Node's bunyan and pino. Anything else is None."""
    if 0 <= number <= 7:
        return _SYSLOG[number]
    return {
        10: Level.TRACE,
        20: Level.DEBUG,
        30: Level.INFO,
        40: Level.WARN,
        50: Level.ERROR,
        60: Level.CRITICAL,
    }.get(number)


_UPPER = (
    r"TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERR(?:OR)?|SEVERE|CRIT(?:ICAL)?|FATAL|D?PANIC|ALERT|EMERG(?:ENCY)?"
)
_ANY = "|".join(sorted(_WORDS, key=len, reverse=True))
#: A word in capitals, a word in brackets, or a word before a colon, near the beginning of the line.
_TEXT: Final = re.compile(
    rf"\b(?P<upper>{_UPPER})\b|[\[(<|](?P<bracket>(?i:{_ANY}))[\])>|:]|\b(?P<colon>(?i:{_ANY})):".encode()
)
_HEAD: Final = 160


def level_of_text(line: bytes) -> Level | None:
    """The level of an unstructured line: ``[error]``, ``WARN``, ``err:``."""
    match = _TEXT.search(line[:_HEAD])
    return level_of_word(match[match.lastgroup or 0].decode()) if match else None
