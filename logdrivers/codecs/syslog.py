"""Syslog, encoding: blocks to the messages of Docker's syslog driver, in its four formats.

``<P>`` and a header that all lines of one time and stream share, then the line and a newline; over a stream
either as it is (LF framing) or with its length before it (RFC 6587's octet counting). A newline inside a
message is ``#012``, as syslog servers write it, except where the length says where the message ends. Decoding is
``logdrivers/codecs/syslog_decode.py``; sockets are ``logdrivers/syslog.py``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import lru_cache

from logdrivers.block import Block, Encoding, Stream, whole_lines
from logdrivers.codecs import json_file

__all__ = ["FACILITIES", "FORMATS", "SyslogEncoder"]

#: Facility names as Docker takes them.
FACILITIES = {
    name: number
    for number, name in enumerate(
        ("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp")
    )
} | {f"local{number}": 16 + number for number in range(8)}
#: ``""`` is the form of the local socket: RFC 3164 without the host.
FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")

_SEVERITY_ERROR, _SEVERITY_INFO = 3, 6
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class SyslogEncoder:
    """The messages of one container: everything but line, time and severity is rendered once."""

    def __init__(
        self,
        tag: str,
        hostname: str,
        pid: int,
        facility: int = 3,
        form: str = "",
        octet_counted: bool = False,
    ) -> None:
        name, host = (text.encode("utf-8", "surrogateescape") for text in (tag, hostname))
        if form not in FORMATS:
            raise ValueError(f"syslog format {form!r}, expected one of {', '.join(map(repr, FORMATS))}")
        self._facility = facility
        self._form = form
        self._octet_counted = octet_counted
        if form.startswith("rfc5424"):
            self._rest = b" %s %s %d %s - " % (host, name, pid, name)
        else:
            self._rest = b"%s %s[%d]: " % (b" " + host if form else b"", name, pid)
        #: Lines without text, which Docker does not send.
        self.empty_lines = 0

    def messages(self, block: Block) -> list[bytes]:
        """One message per line that has text, each with its newline: a datagram's content."""
        return [header + line + b"\n" for header, lines in self._groups(block) for line in lines]

    def frames(self, block: Block) -> bytes:
        """All of the block as a stream takes it."""
        if not self._octet_counted and whole_lines(block) and not block.data.startswith(b"\n"):
            head = self._header(block.first_ns, block.stream)
            framed = block.data.replace(b"\n", b"\n" + head)
            if head + b"\n" not in framed:  # as it is where a line has no text
                return b"".join((head, memoryview(framed)[: -len(head)]))
        out: list[bytes] = []
        for header, lines in self._groups(block):
            if self._octet_counted:
                fixed = len(header) + 1
                out += [b"%d %s%s\n" % (fixed + len(line), header, line) for line in lines]
            else:
                out += (header, (b"\n" + header).join(lines), b"\n")
        return b"".join(out)

    def _groups(self, block: Block) -> Iterator[tuple[bytes, Sequence[bytes]]]:
        """Headers, and the lines under each that have text."""
        groups: Iterator[tuple[int, Stream, list[bytes]]]
        if block.encoding is Encoding.JSON_FILE:
            groups = (
                (time_ns, stream, list(map(self._one_line, texts)))
                for time_ns, stream, texts in _json_groups(block.data)
            )
        elif block.partial is not None:
            groups = iter([(block.first_ns, block.stream, [block.data])])
        elif block.encoding is Encoding.MESSAGE:
            groups = iter([(block.first_ns, block.stream, [self._one_line(block.data[:-1])])])
        else:
            lines = block.data.split(b"\n")
            lines.pop()
            groups = iter([(block.first_ns, block.stream, lines)])
        for time_ns, stream, texts in groups:
            filled = texts if all(texts) else [text for text in texts if text]
            self.empty_lines += len(texts) - len(filled)
            if filled:
                yield self._header(time_ns, stream), filled

    def _one_line(self, text: bytes) -> bytes:
        return text if self._octet_counted else text.replace(b"\n", b"#012")

    def _header(self, time_ns: int, stream: Stream) -> bytes:
        severity = _SEVERITY_ERROR if stream is Stream.STDERR else _SEVERITY_INFO
        priority = self._facility * 8 + severity
        seconds, rest = divmod(time_ns, 1_000_000_000)
        if not self._form.startswith("rfc5424"):
            return b"<%d>%s%s" % (priority, _stamp(seconds), self._rest)
        second, zone = _rfc3339(seconds)
        fraction = b".%06d" % (rest // 1000) if self._form == "rfc5424micro" else b""
        return b"<%d>1 %s%s%s%s" % (priority, second, fraction, zone, self._rest)


def _json_groups(data: bytes) -> Iterator[tuple[int, Stream, list[bytes]]]:
    """Neighbouring records of one time and stream."""
    texts: list[bytes] = []
    last: tuple[int, Stream] | None = None
    for record in json_file.decode(data):
        this = record.time_ns, record.stream
        if last is not None and this != last:
            yield *last, texts
            texts = []
        last = this
        texts.append(record.log.removesuffix(b"\n"))
    if last is not None:
        yield *last, texts


@lru_cache(maxsize=64)
def _stamp(seconds: int) -> bytes:
    """The host's local time as RFC 3164 has it: the day padded with a blank."""
    at = time.localtime(seconds)
    return (
        b"%s %2d %02d:%02d:%02d"
        % (_MONTHS[at.tm_mon - 1].encode(), at.tm_mday, at.tm_hour, at.tm_min, at.tm_sec)
    )  # fmt: skip


@lru_cache(maxsize=64)
def _rfc3339(seconds: int) -> tuple[bytes, bytes]:
    """The host's local time to the second, and its zone, as RFC 3339 has them."""
    at = time.localtime(seconds)
    offset = at.tm_gmtoff // 60
    zone = f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02}:{abs(offset) % 60:02}" if offset else "Z"
    return time.strftime("%Y-%m-%dT%H:%M:%S", at).encode(), zone.encode()
