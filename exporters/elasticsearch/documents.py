"""Stored blocks to the body of a bulk request: ECS documents with ids that a resend repeats.

The escaped text of json-file records is taken into the documents undecoded, a block at a time (``alike.py``);
what belongs to the source is rendered once. Only records that are not alike (pieces of long lines, attributes
of their own, a foreign order of fields) are looked at one by one here.

Field names: Elastic Common Schema 8.11. A document's id is made of the host, the store, the source's number
in it and the number of the line: the same line has the same id however often it is sent.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import orjson

from collector.enrich.services import service_of
from collector.sink import Source, StoredBlock
from exporters.elasticsearch.alike import Frame, render_alike
from logdrivers.block import Block
from logdrivers.codecs import json_file as codec

__all__ = ["Documents", "Rendered", "split_items"]

_STREAM = '","stream":"'
_TIME = '"time":"'
_ACTION_END = '"}}\n{"message":"'
_DOCUMENT_END = "}}\n"
#: Blocks are rendered in pieces of about so many bytes, whose documents stay in the processor's cache.
_CHUNK = 1 << 17
#: Fewer records are rendered faster one by one.
_MANY = 16
_ENCODER = codec.Encoder()


class Rendered(NamedTuple):
    """Part of a bulk body."""

    body: bytes | memoryview  #: two lines for each document, each ended by ``\n``
    documents: int


class _Frame(NamedTuple):
    """What surrounds every line of one source; text is UTF-8 read as Latin-1, which it goes through unchanged."""

    action: str  #: up to the number in the id
    tail: str  #: from behind the time up to the sequence
    alike: Frame  #: the same for many records at once


class Documents:
    """Renders blocks; remembers what it rendered for each source."""

    def __init__(self, store_id: str = "", data_stream: tuple[str, str, str] | None = None) -> None:
        self._store_id = store_id
        self._data_stream = data_stream
        self._frames: dict[int, tuple[Source, _Frame]] = {}

    def render(self, stored: StoredBlock) -> Iterator[Rendered]:
        """The documents of one block, in its order and in parts of a good size to work on."""
        frame = self._frame(stored.source, stored.source_number)
        block = stored.block
        first = stored.first_line + 1
        if block.partial is not None:
            yield _render_records(_ENCODER.encode(block), block, frame, first)
            return
        data = _ENCODER.encode(block)
        for part in _cuts(data) if block.lines >= _MANY else (memoryview(data),):
            alike = render_alike(part, frame.alike, first) if block.lines >= _MANY else None
            rendered = Rendered(*alike) if alike else _render_records(bytes(part), block, frame, first)
            yield rendered
            first += rendered.documents

    def _frame(self, source: Source, number: int) -> _Frame:
        known = self._frames.get(number)
        if known is not None and (known[0] is source or known[0] == source):
            return known[1]
        if len(self._frames) >= 10_000:
            self._frames.clear()
        frame = self._render_frame(source, number)
        self._frames[number] = (source, frame)
        return frame

    def _render_frame(self, source: Source, number: int) -> _Frame:
        identity = f"{source.host}\0{self._store_id}\0{number}".encode()
        prefix = base64.urlsafe_b64encode(hashlib.blake2b(identity, digest_size=12).digest()).decode()
        fields = orjson.dumps(_source_fields(source, self._data_stream)).decode("latin-1")
        dataset = self._data_stream[1] if self._data_stream else "taffrail"
        event = f'"event":{{"dataset":"{dataset}","sequence":'
        action, tail = f'{{"create":{{"_id":"{prefix}-', f"{fields[1:-1]},{event}"
        alike = Frame(*(text.encode("latin-1") for text in (action, _ACTION_END, tail, _DOCUMENT_END)))
        return _Frame(action, f'",{tail}', alike)


def split_items(body: bytes | memoryview) -> list[bytes]:
    """The documents of a bulk body, each with its action line."""
    lines = bytes(body).split(b"\n")
    return [b"%b\n%b\n" % (lines[i], lines[i + 1]) for i in range(0, len(lines) - 1, 2)]


# --- what belongs to the source --------------------------------------------------------------------------


def _source_fields(source: Source, data_stream: tuple[str, str, str] | None) -> dict[str, object]:
    """What is known of a line's source; what is not (of a line of the host itself, any container) has no field."""
    container: dict[str, object] = {}
    if source.container_id:
        container["id"] = source.container_id
    if source.container_name:
        container["name"] = source.container_name
    if source.image:
        container["image"] = _image(source.image)
    if source.engine:
        container["runtime"] = source.engine
    if source.labels:
        # Dots would make objects of the names, and a.b cannot be beside a.
        container["labels"] = {key.replace(".", "_"): value for key, value in source.labels.items()}
    fields: dict[str, object] = {"container": container} if container else {}
    if source.host:
        fields["host"] = {"name": source.host, "hostname": source.host}
    fields |= {"input": {"type": source.input}, "ecs": {"version": "8.11.0"}}
    if service := service_of(source.labels):
        fields["service"] = {"name": service}
    if data_stream:
        fields["data_stream"] = dict(zip(("type", "dataset", "namespace"), data_stream, strict=True))
    return fields


def _image(image: str) -> dict[str, object]:
    name, _, digest = image.partition("@")
    head, colon, tag = name.rpartition(":")
    fields: dict[str, object] = {"name": name}
    if colon and "/" not in tag:  # a colon before a slash belongs to the registry's port
        fields = {"name": head, "tag": [tag]}
    if digest:
        fields["hash"] = {"all": [digest]}
    return fields


def _cuts(data: bytes) -> Iterator[memoryview]:
    """Pieces of a good size to work on, each of whole records."""
    view = memoryview(data)
    start = 0
    while start < len(data):
        end = data.rfind(b"\n", start, start + _CHUNK) + 1 or data.find(b"\n", start) + 1 or len(data)
        yield view[start:end]
        start = end


# --- records one by one ----------------------------------------------------------------------------------


def _render_records(data: bytes, block: Block, frame: _Frame, first: int) -> Rendered:
    out: list[str] = []
    records = data[:-1].split(b"\n")
    for number, record in enumerate(records, first):
        document = _splice_record(record.decode("latin-1")) or _render_foreign(record, block)
        if block.partial is not None:
            at = document.rfind('"@timestamp":"')
            piece = orjson.dumps(block.partial).decode()
            document = f'{document[:at]}"partial":{piece},{document[at:]}'
        out.append(f"{frame.action}{number}{_ACTION_END}{document}{frame.tail}{number}{_DOCUMENT_END}")
    return Rendered("".join(out).encode("latin-1"), len(records))


def _splice_record(record: str) -> str | None:
    """One record in Docker's order of fields, up to its time's text; None for another order."""
    at = record.find(_STREAM, 8)
    time = record.rfind(_TIME)
    if at < 0 or time < at or not record.startswith('{"log":"') or not record.endswith('"}'):
        return None
    stream, _, attributes = record[at + len(_STREAM) : time].partition('"')
    if attributes != "," and not (attributes.startswith(',"attrs":{') and attributes.endswith("},")):
        return None
    message, whole = _strip_newline(record[8:at])
    if not whole:
        attributes = ',"log":{"flags":["partial"]}' + attributes
    labels = attributes.replace('"attrs":{', '"labels":{', 1)
    return f'{message}","stream":"{stream}"{labels}"@timestamp":"{record[time + len(_TIME) : -2]}'


def _strip_newline(message: str) -> tuple[str, bool]:
    r"""The escaped message without its newline, and whether it had one: \\n is a backslash and an n."""
    if not message.endswith("\\n"):
        return message, False
    backslashes = len(message) - 1 - len(message[:-1].rstrip("\\"))
    return (message[:-2], True) if backslashes % 2 else (message, False)


def _render_foreign(record: bytes, block: Block) -> str:
    """A record of another shape; one that is none goes as it is, with the block's time and a tag."""
    fields: dict[str, object]
    try:
        found = codec.decode(record + b"\n")[0]
    except ValueError:
        message, time_ns = record, block.first_ns
        fields = {"tags": ["unparsed"]}
    else:
        message, time_ns = found.log, found.time_ns
        fields = {"stream": found.stream.text} if found.stream.text else {}
        if found.attrs:
            fields["labels"] = dict(found.attrs)
        if not message.endswith(b"\n"):
            fields["log"] = {"flags": ["partial"]}
    fields["@timestamp"] = codec.format_time(time_ns).decode()
    text = codec.escape(message.removesuffix(b"\n")).decode("latin-1")
    return f'{text}",{orjson.dumps(fields).decode("latin-1")[1:-2]}'
