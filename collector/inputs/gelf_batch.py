"""GELF payloads of one wakeup to lines: each in full, or, mostly, only its text and time.

A log driver's messages are alike but for text and time. What stands before and after them is decoded once
and kept as a template, found again by its bytes; the texts of a batch are then decoded all at once. Whatever
does not fit, or decodes to anything unexpected, is decoded in full by itself.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import orjson

from collector.inputs.received import Collator, Origin, render_attributes
from logdrivers.block import Stream
from logdrivers.codecs.gelf_decode import GelfError, GelfMessage, decode

__all__ = ["GelfBatch"]

_TEXT = b'"short_message":"'
_AFTER = b'","timestamp":'
#: Nothing of a message but its text may be longer to be remembered, and so many are.
_CACHEABLE = 4096
_TEMPLATES = 1024
_TIME = re.compile(rb"(?:0|[1-9][0-9]{0,9})(?:\.[0-9]{1,6})?")
#: Fields that would make a template's text or time come from somewhere else.
_OWN = (_TEXT[:-1], b'"full_message"', b'"timestamp"')


class _Template(NamedTuple):
    origin: Origin
    stream: Stream
    attributes: bytes


class _Row(NamedTuple):
    """A payload that fits a template: its text is still JSON."""

    payload: bytes
    text: bytes
    time_ns: int
    template: _Template


class GelfBatch:
    """Gathers decompressed payloads in their order; ``flush`` puts their lines into a collator."""

    def __init__(self, collator: Collator, refused: Callable[[GelfError], None]) -> None:
        self._collator = collator
        self._refused = refused
        self._rows: list[_Row] = []
        self._templates: dict[tuple[bytes, bytes], _Template] = {}
        # Between texts: one that breaks out of its string cannot know this, so it cannot hide that it did.
        self._secret = int.from_bytes(os.urandom(7), "big")
        self._glue = b'",%d,"' % self._secret

    def add(self, payload: bytes) -> None:
        """Take one payload; one that is no message goes to ``refused``, now or at ``flush``."""
        start = payload.find(_TEXT, 0, 512) + len(_TEXT)
        end = payload.find(_AFTER, start)
        after = end + len(_AFTER)
        comma = payload.find(b",", after, after + 32)
        if start < len(_TEXT) or end <= start or comma < 0:
            self._whole(payload)
            return
        key = payload[:start], payload[comma:]
        template = self._templates.get(key)
        time_ns = _time_ns(payload[after:comma]) if template is not None else None
        if template is not None and time_ns is not None:
            self._rows.append(_Row(payload, payload[start:end], time_ns, template))
            return
        self._whole(payload, key)

    def flush(self) -> None:
        """Hand the lines of all payloads taken to the collator."""
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        texts = self._texts(rows)
        if texts is None:
            for row in rows:
                self._whole(row.payload)
            return
        add = self._collator.add
        for row, text in zip(rows, texts, strict=True):
            origin, stream, attributes = row.template
            add(origin, stream, row.time_ns, text.encode(), attributes)

    def _texts(self, rows: list[_Row]) -> list[str] | None:
        """The texts of the rows, decoded; None if any of them is not the inside of a JSON string."""
        try:
            values = orjson.loads(b'["%s"]' % self._glue.join([row.text for row in rows]))
        except orjson.JSONDecodeError:
            return None
        texts, between = values[::2], values[1::2]
        if len(texts) != len(rows) or any(value != self._secret for value in between):
            return None
        return texts if all(type(text) is str for text in texts) else None

    def _whole(self, payload: bytes, key: tuple[bytes, bytes] | None = None) -> None:
        """Decode everything; remember the template if it is to be found under ``key`` again."""
        self.flush()  # what came before goes before
        try:
            message = decode(payload)
        except GelfError as error:
            self._refused(error)
            return
        template = _describe(message, cached=len(payload) < _CACHEABLE)
        time_ns = time.time_ns() if message.time_ns is None else message.time_ns
        text = message.text.encode("utf-8", "replace")
        self._collator.add(template.origin, template.stream, time_ns, text, template.attributes)
        if key is not None and _fixed(key):
            if len(self._templates) >= _TEMPLATES:
                self._templates.clear()
            self._templates[key] = template


def _fixed(key: tuple[bytes, bytes]) -> bool:
    """Whether text and time of such a message can only be those between the key's parts."""
    before, after = key
    own = sum(before.count(name) + after.count(name) for name in _OWN)
    return own == 1 and len(before) + len(after) < _CACHEABLE


def _describe(message: GelfMessage, cached: bool) -> _Template:
    """Everything about a message but its text and time."""
    fields = dict(message.fields)
    container_id = fields.pop("container_id", "")
    name = fields.pop("container_name", "") or message.host
    origin = Origin(container_id, name, fields.pop("image_name", ""))
    level = message.level
    if level not in (None, 3, 6):
        fields.setdefault("level", str(level))
    if message.host and message.host != name:
        fields.setdefault("host", message.host)
    stream = Stream.STDERR if level is not None and level <= 3 else Stream.STDOUT
    return _Template(origin, stream, render_attributes(tuple(fields.items()), cached))


@lru_cache(maxsize=256)
def _time_ns(text: bytes) -> int | None:
    """Nanoseconds of a timestamp as drivers write it; None for any other."""
    seconds, _, fraction = text.partition(b".")
    if _TIME.fullmatch(text) is None or int(seconds) >= 1 << 33:
        return None
    return int(seconds) * 1_000_000_000 + int(fraction.ljust(9, b"0") or b"0")
