"""Syslog, decoding: RFC 3164 and RFC 5424 messages of any sender, and the frames of a byte stream.

Senders take liberties with RFC 3164; what does not look like a header is taken as text, as every receiver
does. Only a message without a priority and a frame that cannot be one are errors.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from logdrivers.codecs.json_file import parse_time

__all__ = ["FrameReader", "SyslogMessage", "decode"]

_MONTHS = {m: n for n, m in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}
_PRIORITY = re.compile(rb"<(\d{1,3})>")
_STAMP = re.compile(rb"([A-Z][a-z]{2}) ([ 0-3]?\d) (\d\d):(\d\d):(\d\d)(?: |$)")
_ISO = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)) ")
_TAG = re.compile(rb"([^\s\[\]:]+)(?:\[([^\]]*)\])?:(?: |$)")
_HOST = re.compile(rb"([^\s\[\]]*[^\s\[\]:]) ")
_HEADER = re.compile(rb"1 (\S+) (\S+) (\S+) (\S+) (\S+) ")
_ELEMENT = re.compile(rb'\[([^\s=\]"]+)((?: [^\s=\]"]+="(?:[^"\\\]]|\\.)*")*)\]', re.DOTALL)
_PARAMETER = re.compile(rb' ([^\s=\]"]+)="((?:[^"\\\]]|\\.)*)"', re.DOTALL)
_BOM = b"\xef\xbb\xbf"
_DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class SyslogMessage:
    """One message; what its header does not have is ``""``, and a time that it does not have is 0."""

    facility: int
    severity: int
    text: bytes  #: without a closing newline
    time_ns: int = 0
    host: str = ""
    app: str = ""
    process: str = ""
    message_id: str = ""
    data: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  #: structured data by element


def decode(message: bytes, now_ns: int | None = None) -> SyslogMessage:
    """One message without its framing. ``now_ns`` tells RFC 3164 times their year (default: the clock).

    Raises ValueError for one that does not begin with a priority, naming it.
    """
    priority = _PRIORITY.match(message)
    if priority is None or int(priority[1]) > 191:
        raise ValueError(f"not a syslog message: expected <0> to <191>, got {message[:40]!r}")
    facility, severity = divmod(int(priority[1]), 8)
    rest = message[priority.end() :].removesuffix(b"\n")
    header = _HEADER.match(rest)
    if header is not None:
        try:
            return _rfc5424(facility, severity, rest, header)
        except ValueError:  # "1 …" that is not RFC 5424
            pass
    return _rfc3164(facility, severity, rest, time.time_ns() if now_ns is None else now_ns)


def _rfc5424(facility: int, severity: int, rest: bytes, header: re.Match[bytes]) -> SyslogMessage:
    when, host, app, process, message_id = header.groups()
    at = header.end()
    data: dict[str, dict[str, str]] = {}
    if rest.startswith(b"-", at):
        at += 1
    else:
        while (element := _ELEMENT.match(rest, at)) is not None:
            pairs = _PARAMETER.findall(element[2])
            data.setdefault(_text(element[1]), {}).update({_text(k): _text(_unescape(v)) for k, v in pairs})
            at = element.end()
        if not data:
            raise ValueError(f"no structured data at {rest[at : at + 40]!r}")
    text = rest[at:].removeprefix(b" ").removeprefix(_BOM)
    time_ns = 0 if when == b"-" else parse_time(when)
    names = _nil(host), _nil(app), _nil(process), _nil(message_id)
    return SyslogMessage(facility, severity, text, time_ns, *names, data)


def _rfc3164(facility: int, severity: int, rest: bytes, now_ns: int) -> SyslogMessage:
    time_ns, host, app, process = 0, b"", b"", b""
    stamp = _STAMP.match(rest)
    iso = None if stamp else _ISO.match(rest)
    if stamp is not None and stamp[1] in _MONTHS:
        time_ns, rest = _nearest(stamp, now_ns), rest[stamp.end() :]
    elif iso is not None:
        time_ns, rest = parse_time(iso[1]), rest[iso.end() :]
    else:
        return SyslogMessage(facility, severity, rest)
    tag = _TAG.match(rest)
    if tag is None and (found := _HOST.match(rest)) is not None:
        host, rest = found[1], rest[found.end() :]
        tag = _TAG.match(rest)
    if tag is not None:
        app, process, rest = tag[1], tag[2] or b"", rest[tag.end() :]
    return SyslogMessage(facility, severity, rest, time_ns, _text(host), _text(app), _text(process))


def _nearest(stamp: re.Match[bytes], now_ns: int) -> int:
    """Nanoseconds of a local time without its year: the latest that is at most a day ahead of now."""
    month, day, hour, minute, second = _MONTHS[stamp[1]], *(int(stamp[n]) for n in range(2, 6))
    now = now_ns // 1_000_000_000
    year = time.localtime(now).tm_year
    times = [
        int(time.mktime((y, month, day, hour, minute, second, 0, 0, -1))) for y in (year - 1, year, year + 1)
    ]
    return max(t for t in times if t <= now + _DAY_SECONDS) * 1_000_000_000


def _unescape(value: bytes) -> bytes:
    return re.sub(rb'\\(["\\\]])', rb"\1", value) if b"\\" in value else value


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _nil(data: bytes) -> str:
    return "" if data == b"-" else _text(data)


class FrameReader:
    """Cuts a stream into messages: each frame is counted if it begins with a digit, else ends at a newline.

    A NUL also ends a frame, as some senders have it. ``max_message`` bounds what one sender can hold here.
    """

    def __init__(self, max_message: int = 1 << 20) -> None:
        self._max = max_message
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are whole now. Raises ValueError for a frame that is none or too long."""
        data = self._rest + data
        found: list[bytes] = []
        at = 0
        while at < len(data):
            end = self._counted(data, at, found) if 0x31 <= data[at] <= 0x39 else self._lined(data, at, found)
            if end < 0:
                break
            at = end
        self._rest = data[at:]
        return found

    def end(self) -> list[bytes]:
        """The sender has closed: what is left of a line is a message. Raises ValueError for a torn counted frame."""
        rest, self._rest = self._rest, b""
        if rest[:1].isdigit():
            raise ValueError(f"the stream ended inside a counted frame: {rest[:40]!r}")
        return [rest] if rest else []

    def _counted(self, data: bytes, at: int, found: list[bytes]) -> int:
        space = data.find(b" ", at, at + 11)
        if space < 0:
            if len(data) - at > 10 or not data[at:].isdigit():
                raise ValueError(f"expected a length and a blank, got {data[at : at + 40]!r}")
            return -1
        if not data[at:space].isdigit() or int(data[at:space]) > self._max:
            raise ValueError(f"expected a length up to {self._max}, got {data[at:space]!r}")
        end = space + 1 + int(data[at:space])
        if end > len(data):
            return -1
        found.append(data[space + 1 : end].rstrip(b"\n"))
        return end

    def _lined(self, data: bytes, at: int, found: list[bytes]) -> int:
        end = data.find(b"\n", at)
        nul = data.find(b"\0", at, end if end >= 0 else len(data))
        end = nul if nul >= 0 else end
        if end < 0:
            if len(data) - at > self._max:
                raise ValueError(f"a message of more than {self._max} bytes without a newline")
            return -1
        if end > at:
            found.append(data[at:end])
        return end + 1
