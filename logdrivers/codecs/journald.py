"""systemd's native journal protocol, encoding: a block to the entries of Docker's journald driver.

An entry is ``NAME=value`` and a newline per field; a value that holds a newline has its length before it
instead (64 bits, little endian). Sockets are ``logdrivers/journald.py``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs import json_file
from logdrivers.driver import Info
from logdrivers.options import extra_attributes
from logdrivers.tag import DEFAULT_TAG, render_tag

__all__ = ["JournaldEncoder", "decode_entry", "field_name"]

_PRIORITY_ERROR, _PRIORITY_INFO = 3, 6


def field_name(name: str) -> str:
    """A label's or variable's name as Docker makes a field's of it: ``app.kubernetes`` is ``APP_KUBERNETES``.

    Letters become upper case, what is no ASCII letter or digit an underscore, and underscores at the start go.
    """
    kept = (c.upper() if c.isascii() and c.isalnum() else "_" for c in name)
    return "".join(kept).lstrip("_")


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)
    return b"%s=%s\n" % (name.encode(), value)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


class JournaldEncoder:
    """The entries of one container: everything but line, time, priority and number is rendered once."""

    def __init__(self, info: Info) -> None:
        tag = render_tag(info.options.get("tag") or DEFAULT_TAG, info)
        fields = {
            "CONTAINER_ID": info.container_id[:12],
            "CONTAINER_ID_FULL": info.container_id,
            "CONTAINER_NAME": info.container_name.removeprefix("/"),
            "CONTAINER_TAG": tag,
            "IMAGE_NAME": info.image_name,
            "SYSLOG_IDENTIFIER": tag,
        }
        for key, value in extra_attributes(info).items():
            if name := field_name(key):
                fields[name] = value
        # The epoch tells one numbering from the next: entries of one time keep their order by their numbers.
        fields["CONTAINER_LOG_EPOCH"] = os.urandom(32).hex()
        self._fields = b"".join(_field(name, _utf8(value)) for name, value in fields.items())
        #: The number of the last entry encoded.
        self.ordinal = 0

    def entries(self, block: Block) -> list[bytes]:
        """One entry per line, also for a line without text."""
        out: list[bytes] = []
        plain = block.encoding is Encoding.LINES
        for time_ns, stream, lines, partial in _groups(block):
            priority = _PRIORITY_ERROR if stream is Stream.STDERR else _PRIORITY_INFO
            head = b"PRIORITY=%d\nMESSAGE=" % priority
            tail = b"\nSYSLOG_TIMESTAMP=%s\n%s%sCONTAINER_LOG_ORDINAL=" % (
                json_file.format_time(time_ns),
                self._fields,
                _partial(partial),
            )
            number = self.ordinal
            if not plain and any(b"\n" in line for line in lines):  # a message of several lines
                tail = tail[1:]
                head = head.removesuffix(b"MESSAGE=")
                out += [
                    b"%s%s%s%d\n" % (head, _field("MESSAGE", line), tail, n)
                    for n, line in enumerate(lines, number + 1)
                ]
            else:
                out += [b"%s%s%s%d\n" % (head, line, tail, n) for n, line in enumerate(lines, number + 1)]
            self.ordinal += len(lines)
        return out


def _partial(partial: Partial | None) -> bytes:
    if partial is None:
        return b""
    fields = b"CONTAINER_PARTIAL_ID=%s\nCONTAINER_PARTIAL_ORDINAL=%d\nCONTAINER_PARTIAL_LAST=%s\n" % (
        partial.id.encode(),
        partial.ordinal,
        b"true" if partial.last else b"false",
    )
    return fields if partial.last else b"CONTAINER_PARTIAL_MESSAGE=true\n" + fields


def _groups(block: Block) -> Iterator[tuple[int, Stream, list[bytes], Partial | None]]:
    if block.encoding is Encoding.JSON_FILE:
        for record in json_file.decode(block.data):
            yield record.time_ns, record.stream, [record.log.removesuffix(b"\n")], None
    elif block.partial is not None:
        yield block.first_ns, block.stream, [block.data], block.partial
    elif block.encoding is Encoding.MESSAGE:
        yield block.first_ns, block.stream, [block.data[:-1]], None
    else:
        yield block.first_ns, block.stream, block.data.split(b"\n")[:-1], None


def decode_entry(entry: bytes) -> Mapping[str, bytes]:
    """The fields of one entry. Raises ValueError for bytes that are none."""
    fields: dict[str, bytes] = {}
    at = 0
    while at < len(entry):
        end = entry.find(b"\n", at)
        name, equals, value = entry[at : end if end >= 0 else len(entry)].partition(b"=")
        if equals:
            at = end + 1 if end >= 0 else len(entry)
        else:
            begin = end + 9
            size = int.from_bytes(entry[end + 1 : begin], "little")
            value = entry[begin : begin + size]
            at = begin + size + 1
            if end < 0 or at > len(entry) or entry[at - 1 : at] != b"\n":
                raise ValueError(f"field {name!r} at byte {end} has no value of its length")
        fields[name.decode("ascii")] = value
    return fields
