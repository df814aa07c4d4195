"""Docker's json-file records: a block of lines to records, records back to values, and cuts in between.

``{"log":L,"stream":S,"attrs":{…},"time":T}`` and a newline, byte for byte as Docker Engine writes them.
Encoding works on whole blocks; most readers need no decoding either: ``messages`` and ``time_range`` cut
what they want out of the escaped text. Files, rotation and positions are ``logdrivers/json_file.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

import orjson

from logdrivers.block import Block, Encoding, Stream, count_lines

__all__ = [
    "Encoder",
    "Record",
    "count_records",
    "decode",
    "escape",
    "escape_lines",
    "first_time",
    "format_second",
    "format_time",
    "last_time",
    "messages",
    "parse_time",
    "render_attributes",
    "source_bytes",
    "streams",
    "time_range",
    "unescape",
]

_OPEN = b'{"log":"'
#: Ends the message of a record: inside a JSON string a quote has its backslash, so this cannot be in one.
_END = b'","stream":"'

_MARKUP = ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026"))
_SEPARATORS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))
#: What orjson writes in two characters and Docker does not (the newline becomes the end of a record).
_NAMED = ((b"\n", b""), (b"\t", b"\\u0009"), (b"\b", b"\\u0008"), (b"\f", b"\\u000c"))
#: Stand in for those while orjson works on the rest, if absent: ends of escapes look alike, these do not.
_MARKERS = tuple(bytes([c]) for c in b"\x7f~^`|@#$%!*;{}[]QZXJ")
_CONTROLS = (
    (b"\\", b"\\\\"),
    (b'"', b'\\"'),
    (b"\r", b"\\r"),
    *((bytes([c]), b"\\u%04x" % c) for c in range(0x20) if c not in b"\n\r"),
)


class Record(NamedTuple):
    """One record, decoded."""

    time_ns: int
    stream: Stream
    log: bytes  #: as Docker hands it out: with its newline, unless it is a piece of a longer line
    attrs: Mapping[str, str]


class Encoder:
    """Encodes one container's blocks; its attributes are rendered once."""

    def __init__(self, attrs: Mapping[str, str] | None = None) -> None:
        self._attrs = render_attributes(attrs)

    def encode(self, block: Block) -> bytes:
        """The block as records, each ended by a newline; a JSON_FILE block is returned as it is.

        Raises ValueError for a block that is not what its fields say (a line without newline, a wrong
        count of lines).
        """
        if block.encoding is Encoding.JSON_FILE:
            return block.data
        data = block.data
        end = b'","stream":"%s",%s"time":"%s"}\n' % (
            _STREAM_TEXT[block.stream],
            self._attrs,
            format_time(block.first_ns),
        )
        if block.partial is not None:
            newline = b"\\n" if block.partial.last else b""
            return b"".join((_OPEN, escape(data), newline, end))
        if not data.endswith(b"\n"):
            raise ValueError(f"block of {block.lines} lines does not end in a newline: {data[-40:]!r}")
        if block.encoding is Encoding.MESSAGE:
            return b"".join((_OPEN, escape(data), end))
        glue = b"\\n" + end + _OPEN
        lines = _render(data, block.lines, glue)
        return b"".join((_OPEN, memoryview(lines)[: len(lines) - len(_OPEN)]))


def render_attributes(attrs: Mapping[str, str] | None) -> bytes:
    """``attrs`` as they stand in a record, with the comma behind them; nothing if there are none."""
    if not attrs:
        return b""
    return b'"attrs":{%s},' % b",".join(
        b'"%s":"%s"' % (_escape_attribute(key), _escape_attribute(attrs[key]))
        for key in sorted(attrs, key=_bytes)
    )


def escape_lines(data: bytes, lines: int, glue: bytes = b"\n") -> bytes:
    """``lines`` lines, each ended by a newline, escaped; each newline becomes ``glue``.

    Raises ValueError if there are not so many.
    """
    return _render(data, lines, glue)


def escape(text: bytes | str) -> bytes:
    """``text`` as it stands in the ``log`` of a record: what a search has to look for.

    Text is UTF-8; bytes are taken as they are, each invalid one becomes ``\\ufffd``.
    """
    data = text if isinstance(text, bytes) else _bytes(text)
    return _render(data, data.count(b"\n"), b"\\n")


def unescape(message: bytes) -> bytes:
    """The bytes behind an escaped message. Raises ValueError for text that is not the inside of a string."""
    at = message.find(b"\\")
    if at < 0:
        return message
    if at == len(message) - 2 and message[at + 1] == 0x6E:
        return message[:at] + b"\n"
    quoted = b'"%s"' % message
    try:
        text: str = orjson.loads(quoted)
    except orjson.JSONDecodeError:
        text = json.loads(quoted.decode("utf-8", "replace"), strict=False)
    return text.encode("utf-8", "replace") if text.isascii() else _replace_surrogates(text).encode()


def _render(data: bytes, newlines: int, glue: bytes) -> bytes:
    """``data`` escaped, with ``glue`` for each of its ``newlines`` newlines.

    orjson finds at memory speed whether there is anything to escape: each escape makes the text longer.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return _glued(_render_stepwise(data), newlines, glue)
    special = b'"' in data or b"\\" in data or b"\t" in data
    if not special and len(orjson.dumps(text)) == len(data) + 2 + newlines:
        return _glued(_escape_markup(data, text.isascii()), newlines, glue)
    named = [row for row in _NAMED if row[0] in data]
    markers = _absent(data, len(named))
    if markers is None:
        return _glued(_render_stepwise(data), newlines, glue)
    for (raw, _), marker in zip(named, markers, strict=True):
        data = data.replace(raw, marker)
    out = _escape_markup(orjson.dumps(data.decode())[1:-1], text.isascii())
    newline = b"\n"
    for (raw, escaped), marker in zip(named, markers, strict=True):
        if raw == b"\n":
            newline = marker
        else:
            out = out.replace(marker, escaped)
    return _glued(out, newlines, glue, newline)


def _absent(data: bytes, count: int) -> list[bytes] | None:
    """So many characters that are not in ``data`` and that JSON writes as they are."""
    found: list[bytes] = []
    for marker in _MARKERS:
        if len(found) == count:
            break
        if marker not in data:
            found.append(marker)
    return found if len(found) == count else None


def _render_stepwise(data: bytes) -> bytes:
    """``data`` escaped except for its newlines, whatever is in it: one replacement after the other."""
    out = data
    for raw, escaped in _CONTROLS:
        if raw in out:
            out = out.replace(raw, escaped)
    if not out.isascii():
        out = _replace_invalid(out)
    return _escape_markup(out, out.isascii())


def _replace_invalid(data: bytes) -> bytes:
    """``data`` (no control character but newline) with ``\\ufffd`` for each byte that is not UTF-8.

    The codec puts a question mark for each, at C speed; the real ones stand aside meanwhile.
    """
    out = data.replace(b"?", b"\x00")
    out = out.decode("utf-8", "surrogateescape").encode("utf-8", "replace")
    return out.replace(b"?", b"\\ufffd").replace(b"\x00", b"?")


def _escape_markup(data: bytes, ascii_only: bool) -> bytes:
    for raw, escaped in _MARKUP:
        if raw in data:
            data = data.replace(raw, escaped)
    if not ascii_only:
        for raw, escaped in _SEPARATORS:
            if raw in data:
                data = data.replace(raw, escaped)
    return data


def _glued(out: bytes, newlines: int, glue: bytes, marker: bytes = b"\n") -> bytes:
    """``out`` with ``glue`` for each newline, which ``marker`` stands for; their number is checked."""
    glued = out.replace(marker, glue)
    if len(glued) - len(out) != newlines * (len(glue) - len(marker)):
        raise ValueError(f"block of {newlines} lines holds {out.count(marker)}: {out[:40]!r}")
    return glued


def _bytes(text: str) -> bytes:
    """UTF-8, with the bytes that os.fsdecode could not decode (an environment variable) as they were."""
    return text.encode("utf-8", "surrogateescape")


def _escape_attribute(text: str) -> bytes:
    """Attributes are written by Go's encoding/json, which differs in one escape: the tab is ``\\t``."""
    return b"\\t".join(escape(part) for part in _bytes(text).split(b"\t"))


# --- times ---------------------------------------------------------------------------------------------


def format_time(time_ns: int) -> bytes:
    """Nanoseconds since the epoch as Go's RFC3339Nano in UTC: trailing zeros of the fraction cut off."""
    seconds, fraction = divmod(time_ns, 1_000_000_000)
    if not fraction:
        return format_second(seconds) + b"Z"
    return b"%s.%sZ" % (format_second(seconds), (b"%09d" % fraction).rstrip(b"0"))


@lru_cache(maxsize=64)
def format_second(seconds: int) -> bytes:
    """A second since the epoch as far as the point before its fraction: ``2026-11-20T19:43:32``."""
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0").encode()


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def parse_time(text: bytes) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time. Raises ValueError naming a text that is none."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    second, fraction, zone = match.groups()
    return _parse_second(second, zone) + (int(fraction.ljust(9, b"0")) if fraction else 0)


@lru_cache(maxsize=256)
def _parse_second(second: bytes, zone: bytes) -> int:
    text = second.decode() + ("+00:00" if zone == b"Z" else zone.decode())
    since = datetime.fromisoformat(text) - _EPOCH
    return (since.days * 86400 + since.seconds) * 1_000_000_000


# --- reading -------------------------------------------------------------------------------------------

_REST = re.compile(rb'(stdout|stderr|)",(?:"attrs":(\{.*\}),)?"time":"([^"\\]+)"\}')
_STREAM_TEXT = {stream: stream.text.encode() for stream in Stream}
_STREAMS = {b"stdout": Stream.STDOUT, b"stderr": Stream.STDERR, b"": Stream.MIXED}
_TIME_FIELD = b',"time":"'
_TAIL = len(_TIME_FIELD) + len("2026-11-20T19:43:32.003026721Z") + len('"}')


def decode(data: bytes, bad: list[bytes] | None = None) -> list[Record]:
    """The records in ``data``, whoever wrote them and in whatever order of fields.

    A line that is not a record (torn, zeros after a power cut) goes to ``bad``; without ``bad`` it raises
    ValueError.
    """
    records: list[Record] = []
    last_rest = b""
    stream, attrs, time_ns = Stream.MIXED, dict[str, str](), 0
    for line in data.split(b"\n"):
        if not line:
            continue
        at = line.find(_END, 8) if line.startswith(_OPEN) else -1
        rest = line[at + len(_END) :]
        try:
            if at < 0 or (rest != last_rest and not (match := _REST.fullmatch(rest))):
                records.append(_decode_any(line))
                continue
            if rest != last_rest and match is not None:
                stream = _STREAMS[match[1]]
                attrs = _attributes(orjson.loads(match[2])) if match[2] else {}
                time_ns = parse_time(match[3])
                last_rest = rest
            records.append(Record(time_ns, stream, unescape(line[8:at]), attrs))
        except ValueError as error:
            last_rest = b""
            if bad is None:
                raise ValueError(f"not a json-file record: {line[:120]!r}: {error}") from error
            bad.append(line)
    return records


def _decode_any(line: bytes) -> Record:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:  # lone surrogates, raw control characters, invalid UTF-8
        try:
            fields = json.loads(line.decode("utf-8", "replace"), strict=False)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
    if not isinstance(fields, dict):
        raise ValueError("expected an object")
    log, stream, time = fields.get("log", ""), fields.get("stream", ""), fields.get("time")
    if not (isinstance(log, str) and isinstance(stream, str) and isinstance(time, str)):
        raise ValueError("expected texts log, stream and time")
    return Record(
        parse_time(_replace_surrogates(time).encode()),
        _STREAMS.get(_replace_surrogates(stream).encode(), Stream.MIXED),
        _replace_surrogates(log).encode(),
        _attributes(fields.get("attrs") or {}),
    )


def _attributes(fields: object) -> dict[str, str]:
    if not isinstance(fields, dict):
        raise ValueError("expected an object in attrs")
    return {_replace_surrogates(key): _replace_surrogates(_attribute(value)) for key, value in fields.items()}


def _attribute(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _replace_surrogates(text: str) -> str:
    """Lone surrogates, which JSON can say and UTF-8 cannot, as Go reads them: U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def count_records(data: bytes) -> int:
    """How many records ``data`` holds (whole ones)."""
    return count_lines(data)


def messages(data: bytes) -> list[bytes]:
    """The messages of the records, still escaped, each with its ``\\n`` unless a piece of a longer line.

    Cut out, not decoded, where the records are in Docker's order of fields. Raises ValueError for a line
    that is not a record.
    """
    if not data:
        return []
    found: list[bytes] = []
    rest = b"\x00"  # ends no line
    cut = 0
    for line in data.removesuffix(b"\n").split(b"\n"):
        if not line.startswith(_OPEN):
            found.append(escape(decode(line)[0].log))
        elif line.endswith(rest):
            found.append(line[8:cut])
        elif (at := line.find(_END, 8)) < 0:
            found.append(escape(decode(line)[0].log))
        else:
            found.append(line[8:at])
            rest = line[at:]
            cut = -len(rest)
    return found


def streams(data: bytes) -> Stream:
    """The stream all records are of, or MIXED."""
    records = count_records(data)
    for stream in (Stream.STDOUT, Stream.STDERR):
        if data.count(b'","stream":"%s"' % stream.text.encode()) == records:
            return stream
    return Stream.MIXED


def source_bytes(data: bytes) -> int:
    """How many bytes a container wrote to give these records: the length of all messages, unescaped."""
    text = b"".join(messages(data)).replace(b"\\\\", b".")  # what is left of backslashes begins an escape
    # \X is one byte and \uXXXX too, but the separators U+2028 and U+2029 are three.
    separators = text.count(b"\\u2028") + text.count(b"\\u2029")
    return len(text) - text.count(b"\\") - 4 * text.count(b"\\u") + 2 * separators


def first_time(data: bytes) -> int:
    """Nanoseconds since the epoch of the first record. Raises ValueError if it is none."""
    return _line_time(data[: data.find(b"\n") + 1] or data)


def last_time(data: bytes) -> int:
    """Nanoseconds since the epoch of the last record. Raises ValueError if it is none."""
    return _line_time(data[data.rfind(b"\n", 0, len(data) - 1) + 1 :])


def time_range(data: bytes, strict: bool = True) -> tuple[int, int]:
    """The lowest and highest time of the records.

    Raises ValueError if there is a line that is none; if not ``strict`` such lines are passed over, and
    (0, 0) is what is left of nothing.
    """
    times: list[int] = []
    for tail in {line[-_TAIL:] for line in data.removesuffix(b"\n").split(b"\n")}:
        at = tail.rfind(_TIME_FIELD)
        time = tail[at + len(_TIME_FIELD) : -2]
        if at < 0 or not tail.endswith(b'"}') or b'"' in time:
            times = [record.time_ns for record in decode(data, None if strict else [])]
            break
        times.append(parse_time(time))
    return (min(times), max(times)) if times else (0, 0)


def _line_time(line: bytes) -> int:
    at = line.rfind(_TIME_FIELD)
    if at >= 0 and line.endswith(b'"}\n') and b'"' not in (time := line[at + len(_TIME_FIELD) : -3]):
        return parse_time(time)
    return decode(line)[0].time_ns
