"""Graylog's GELF 1.1, encoding: blocks to the JSON, the datagrams and the TCP frames of Docker's gelf driver.

Key order, escapes and the form of numbers are those of Docker Engine 20.10. Decoding is
``logdrivers/codecs/gelf_decode.py``; sockets are ``logdrivers/gelf.py``.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from isal import igzip, isal_zlib

from logdrivers.block import Block, Encoding, Stream, whole_lines
from logdrivers.codecs import json_file
from logdrivers.driver import Info
from logdrivers.options import extra_attributes
from logdrivers.tag import DEFAULT_TAG, render_tag

__all__ = [
    "CHUNK_MAGIC",
    "MAX_CHUNKS",
    "Compressed",
    "Datagrams",
    "GelfEncoder",
    "TooLarge",
    "chunk",
    "escape",
]

CHUNK_MAGIC = b"\x1e\x0f"
MAX_CHUNKS = 128
#: The largest datagram, and what a chunk of that size carries behind its 12 bytes of header.
_DATAGRAM = 1420
_CHUNK_DATA = _DATAGRAM - 12
_LEVELS = {Stream.STDERR: 3}
_LINE_END = b"\x7f"
#: Up to here a line travels as it is between parts compressed once; a longer one is worth compressing.
_SHORT = 256


class TooLarge(ValueError):
    """A message that does not fit into 128 chunks."""


class _Group(NamedTuple):
    """Messages of one time and stream: their escaped texts and what follows each of them."""

    texts: Sequence[bytes]
    suffix: bytes


class GelfEncoder:
    """The messages of one container: everything but line, time and level is rendered once."""

    def __init__(self, info: Info, hostname: str = "") -> None:
        host = hostname or info.hostname
        extras = {
            "_command": " ".join(info.command),
            "_container_id": info.container_id,
            "_container_name": info.container_name.removeprefix("/"),
            "_created": json_file.format_time(info.created_ns).decode(),
            "_image_id": info.image_id,
            "_image_name": info.image_name,
            "_tag": render_tag(info.options.get("tag") or DEFAULT_TAG, info),
        }
        for key, value in extra_attributes(info).items():
            if key:
                extras[key if key.startswith("_") else "_" + key] = value
        #: What every message starts with, up to the text of the line.
        self.prefix = b'{"version":"1.1","host":"%s","short_message":"' % escape(_utf8(host))
        self._extras = b"".join(
            b',"%s":"%s"' % (escape(_utf8(key)), escape(_utf8(extras[key])))
            for key in sorted(extras, key=_utf8)
        )
        #: Lines without text, which GELF cannot carry: skipped, as Docker does.
        self.empty_lines = 0

    def groups(self, block: Block) -> Iterator[_Group]:
        """The block's messages, each to be put together as ``prefix + text + suffix``."""
        groups = self._json_groups(block) if block.encoding is Encoding.JSON_FILE else self._lines(block)
        for texts, suffix in groups:
            filled = [text for text in texts if text]
            self.empty_lines += len(texts) - len(filled)
            if filled:
                yield _Group(filled, suffix)

    def payloads(self, block: Block) -> list[bytes]:
        """One JSON text per line."""
        return [self.prefix + text + suffix for texts, suffix in self.groups(block) for text in texts]

    def frames(self, block: Block) -> bytes:
        """All of the block as TCP takes it: uncompressed, a NUL behind each message."""
        data, prefix = block.data, self.prefix
        if whole_lines(block) and b"\t" not in data and not data.startswith(b"\n"):
            suffix = self._suffix(block.first_ns, block.stream)
            framed = json_file.escape_lines(data, block.lines, b"%s\0%s" % (suffix, prefix))
            if prefix + suffix not in framed:  # as it is where a line has no text
                return b"".join((prefix, memoryview(framed)[: -len(prefix)]))
        out: list[bytes] = []
        for texts, suffix in self.groups(block):
            end = suffix + b"\0"
            out += (self.prefix, (end + self.prefix).join(texts), end)
        return b"".join(out)

    def _lines(self, block: Block) -> Iterator[_Group]:
        if block.partial is not None:
            texts = [escape(block.data)]
        elif block.encoding is Encoding.MESSAGE:
            texts = [escape(block.data[:-1])]
        elif _LINE_END in block.data:
            texts = [escape(line) for line in block.data.split(b"\n")[:-1]]
        else:
            # Newlines become a byte that no escape makes or touches; then the block is cut there.
            texts = escape(block.data.replace(b"\n", _LINE_END)).split(_LINE_END)
            texts.pop()
        yield _Group(texts, self._suffix(block.first_ns, block.stream))

    def _json_groups(self, block: Block) -> Iterator[_Group]:
        """Spliced from the escaped text; records in Docker's order that share their end share a group."""
        texts: list[bytes] = []
        last, suffix = b"", b""
        for line in block.data.splitlines():
            at = line.find(b'","stream":"', 8) if line.startswith(b'{"log":"') else -1
            end = _to_milliseconds(line[at:])
            if at < 0 or end != last:
                if texts:
                    yield _Group(texts, suffix)
                record = json_file.decode(line)[0]
                suffix = self._suffix(record.time_ns, record.stream)
                texts, last = [], end
                if at < 0:
                    yield _Group([escape(record.log.removesuffix(b"\n"))], suffix)
                    continue
            text = line[8:at]
            if text.endswith(b"\\n") and (len(text) - len(text.rstrip(b"n").rstrip(b"\\"))) % 2 == 0:
                text = text[:-2]
            texts.append(_short_tabs(text))
        if texts:
            yield _Group(texts, suffix)

    def _suffix(self, time_ns: int, stream: Stream) -> bytes:
        seconds, rest = divmod(time_ns, 1_000_000_000)
        fraction = (b".%03d" % (rest // 1_000_000)).rstrip(b"0").rstrip(b".")
        level = _LEVELS.get(stream, 6)
        return b'","timestamp":%d%s,"level":%d%s}' % (seconds, fraction, level, self._extras)


def _to_milliseconds(end: bytes) -> bytes:
    """The end of a record as far as a message depends on it: GELF's times have milliseconds."""
    dot = end.rfind(b".", -13)
    return end[: dot + 4] if dot >= 0 and len(end) - dot >= 7 and end.endswith(b'Z"}') else end


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def escape(data: bytes) -> bytes:
    """The inside of a JSON string as Go's encoding/json writes it: json-file's escapes but for the tab."""
    escaped = json_file.escape(data)
    return _short_tabs(escaped) if b"\t" in data else escaped


def _short_tabs(escaped: bytes) -> bytes:
    if b"\\u0009" not in escaped:
        return escaped
    # Set the escaped backslashes aside: one may stand before a literal "u0009".
    return escaped.replace(b"\\\\", b"\0").replace(b"\\u0009", b"\\t").replace(b"\0", b"\\\\")


# --- compression and datagrams -------------------------------------------------------------------------

_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\x04\xff"
_ZLIB_HEADER = b"\x78\x01"


class Compressed:
    """Blocks to messages each compressed by itself: ``gzip``, ``zlib`` or ``none``, level -1 to 9 as for zlib.

    At level 1, Docker's default, a short message costs no compression at all: its deflate stream is a
    stored block with the line and, behind it, the end of the message, compressed once for the whole block.
    """

    def __init__(self, encoder: GelfEncoder, compression: str = "gzip", level: int = 1) -> None:
        self._encoder = encoder
        self._compression = compression
        self._splice = level == 1 and compression != "none"
        self._compress = _compressor(compression, level)

    def payloads(self, block: Block) -> list[bytes]:
        """One per line that has text, in order."""
        out: list[bytes] = []
        for texts, suffix in self._encoder.groups(block):
            if self._splice and max(map(len, texts)) <= _SHORT:
                self._spliced(out, texts, suffix)
            else:
                compress, prefix = self._compress, self._encoder.prefix
                out += [compress(prefix + text + suffix) for text in texts]
        return out

    def _spliced(self, out: list[bytes], texts: Sequence[bytes], suffix: bytes) -> None:
        prefix = self._encoder.prefix
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        end = deflate.compress(suffix) + deflate.flush()
        gzip = self._compression == "gzip"
        header = (_GZIP_HEADER if gzip else _ZLIB_HEADER) + b"\0"
        checksum: Callable[[bytes, int], int] = isal_zlib.crc32 if gzip else isal_zlib.adler32
        start = checksum(prefix, 0 if gzip else 1)
        fixed, around = len(prefix), len(prefix) + len(suffix)
        stored, trailer = struct.Struct("<HH").pack, struct.Struct("<II" if gzip else ">I").pack
        for text in texts:
            length = fixed + len(text)
            check = checksum(suffix, checksum(text, start))
            tail = trailer(check, around + len(text)) if gzip else trailer(check)
            out.append(b"".join((header, stored(length, length ^ 0xFFFF), prefix, text, end, tail)))


class Datagrams:
    """Blocks to datagrams, compressed as in ``Compressed``: a message each, or its chunks."""

    def __init__(self, encoder: GelfEncoder, compression: str = "gzip", level: int = 1) -> None:
        self._compressed = Compressed(encoder, compression, level)
        self.too_large = 0  #: messages that needed more than 128 chunks

    def encode(self, block: Block) -> list[bytes]:
        """The datagrams of a block, in order; what does not fit is left out and counted."""
        payloads = self._compressed.payloads(block)
        if not payloads or max(map(len, payloads)) <= _DATAGRAM:
            return payloads
        out: list[bytes] = []
        for payload in payloads:
            try:
                out += (payload,) if len(payload) <= _DATAGRAM else chunk(payload)
            except TooLarge:
                self.too_large += 1
        return out


def _compressor(compression: str, level: int) -> Callable[[bytes], bytes]:
    if compression == "none":
        return lambda payload: payload
    if compression == "gzip":
        if level == 1:
            return lambda payload: igzip.compress(payload, 1, mtime=0)
        return lambda payload: zlib.compress(payload, level, 31)
    if compression == "zlib":
        if level == 1:
            return lambda payload: isal_zlib.compress(payload, 1)
        return lambda payload: zlib.compress(payload, level)
    raise ValueError(f"compression {compression!r}, expected gzip, zlib or none")


def chunk(payload: bytes, message_id: bytes | None = None) -> list[bytes]:
    """``payload`` as GELF chunks of at most 1420 bytes; ``message_id`` is 8 bytes, random if not given.

    The count is Docker's, ⌊length/1408⌋+1: an exact multiple ends in a chunk without data, which receivers
    must have. Raises TooLarge.
    """
    count = len(payload) // _CHUNK_DATA + 1
    if count > MAX_CHUNKS:
        raise TooLarge(f"msg too large, would need {count} chunks")
    head = CHUNK_MAGIC + (message_id or os.urandom(8))
    return [
        head + bytes((number, count)) + payload[number * _CHUNK_DATA : (number + 1) * _CHUNK_DATA]
        for number in range(count)
    ]
