"""What a configuration may not say although every value is of its type, and what in it has no effect.

Single values are read by ``config_load.py``; files and what only their users can judge are checked where they
are used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields

from taffrail.config import Config
from taffrail.units import bytes_size

__all__ = ["refusals", "without_effect"]

#: Less is a slip, like ``10`` for ``10GiB``: files roll over in parts of the limit.
_LEAST_BYTES = 1 << 20

#: Section, key, least and most, and the two in words.
_DURATIONS = (
    ("collector", "interval", 0.1, 60.0, "between 100ms and 1m"),
    ("collector", "process_history_interval", 1.0, 60.0, "between 1s and 1m"),
    ("remote_write", "interval", 1.0, 3600.0, "between 1s and 1h"),
    ("remote_write", "request_timeout", 0.1, math.inf, "of 100ms or more"),
)
#: Section, key, and whether 0 switches it off.
_SIZES = (
    ("collector", "history_max_size", True),
    ("collector", "process_history_max_size", True),
    ("collector", "connection_history_max_size", True),
    ("engine", "journal_max_bytes", False),
    ("remote_write", "queue_size", False),
    ("store", "max_size", False),
)
_WORDS = (("level", ("debug", "info", "warning", "error")), ("format", ("text", "json")))


def refusals(config: Config) -> Iterator[str]:
    """What is refused: key, value and what was expected."""
    for key, words in _WORDS:
        word = getattr(config.log, key)
        if word not in words:
            yield f"[log] {key} {word!r}: expected {', '.join(words[:-1])} or {words[-1]}"
    for section, key, least, most, expected in _DURATIONS:
        seconds = getattr(getattr(config, section), key)
        if not least <= seconds <= most:
            yield f"[{section}] {key} {seconds!r}: expected a time {expected}"
    for section, key, may_be_off in _SIZES:
        size = getattr(getattr(config, section), key)
        if size < _LEAST_BYTES and not (may_be_off and size == 0):
            yield (
                f"[{section}] {key} {bytes_size(size)}: expected {bytes_size(_LEAST_BYTES)} or more"
                f"{', or 0 for none' if may_be_off else ''}"
            )


def without_effect(config: Config) -> list[str]:
    """A sentence for every key that is set and changes nothing, for what it is about is off."""
    inputs, collector = config.inputs, config.collector
    off = {
        "inputs": {
            "gelf_tls_": ""
            if inputs.gelf or inputs.gelf_http
            else "inputs.gelf and inputs.gelf_http are empty",
            "forward_": "" if inputs.forward else "inputs.forward is empty",
        },
        "collector": {
            "process_history_interval": ""
            if collector.process_history_max_size
            else "collector.process_history_max_size is 0",
            "connection_history_max_size": "" if collector.connections else "collector.connections is false",
        },
        "elasticsearch": {"": "" if config.elasticsearch.hosts else "elasticsearch.hosts is empty"},
        "remote_write": {"": "" if config.remote_write.url else "remote_write.url is empty"},
    }
    default = Config()
    found = []
    for section, reasons in off.items():
        values, usual = getattr(config, section), getattr(default, section)
        for key in fields(values):
            why = next((why for start, why in reasons.items() if why and key.name.startswith(start)), "")
            if why and getattr(values, key.name) != getattr(usual, key.name):
                found.append(f"{section}.{key.name} has no effect: {why}")
    return found
