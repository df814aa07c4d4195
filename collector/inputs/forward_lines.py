"""Forward events to lines: whose line an event is, its stream, its text, and the further fields.

Docker's fluentd driver says all of it in a record's fields; an application's own event, without a text, is a line
as a whole. Receiving is ``collector/inputs/forward.py``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson

from collector.inputs.received import Origin, render_attributes
from logdrivers.block import Stream
from logdrivers.codecs.forward_decode import Event

__all__ = ["Line", "line"]

_LOG_KEYS = ((b"log", "log"), (b"message", "message"))
_TEXTS = frozenset({bytes, str})
_CACHEABLE = 4096
Line = tuple[Origin, Stream, bytes, bytes, bool]


def line(tag: str, event: Event) -> Line:
    """What an event says: whose line, which stream, the text, the further fields, whether it ends there."""
    record = dict(event.record)
    text: object = None
    for packed, plain in _LOG_KEYS:
        text = record.pop(packed, None)
        if text is None:
            text = record.pop(plain, None)
        if text is not None:
            break
    if text is None:  # an application's own event: all of it is the line
        text = orjson.dumps(_plain(record))
        record = {}
    values = record.values()
    # Texts only: equal numbers and booleans read differently; and small: what is remembered takes memory.
    same = _TEXTS.issuperset(map(type, values)) and sum(map(len, values)) < _CACHEABLE
    describe = _described if same else _describe
    origin, stream, attributes, whole = describe(tag, tuple(record.items()))
    return (
        origin,
        stream,
        text if type(text) is bytes else _text(text).encode("utf-8", "replace"),
        attributes,
        whole,
    )


def _describe(tag: str, items: tuple[tuple[Any, Any], ...]) -> tuple[Origin, Stream, bytes, bool]:
    fields = {_text(key): _text(value) for key, value in items}
    container_id = fields.pop("container_id", "")
    name = fields.pop("container_name", "").removeprefix("/") or tag
    stream = Stream.STDERR if fields.get("source") == "stderr" else Stream.STDOUT
    if fields.get("source") in ("stdout", "stderr"):
        del fields["source"]
    whole = fields.pop("partial_message", "") != "true" or fields.get("partial_last") == "true"
    fields.setdefault("tag", tag)
    origin = Origin(container_id, name, fields.pop("image_name", ""))
    return origin, stream, render_attributes(tuple(fields.items())), whole


#: A container's lines differ in nothing but the text, mostly.
_described = lru_cache(maxsize=1024)(_describe)


def _plain(value: Any) -> Any:
    """A MessagePack value as JSON has it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_text(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | float | str):
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 64 else str(value)
    return str(value)


def _text(value: Any) -> str:
    if type(value) is bytes:
        return value.decode("utf-8", "replace")
    if type(value) is str:
        return value
    return orjson.dumps(_plain(value), option=orjson.OPT_NON_STR_KEYS).decode()
