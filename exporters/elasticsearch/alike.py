"""Many json-file records of the usual shape to documents, all at once.

A record's own bytes become the inner part of its document: what stands around the message and the time is
overwritten in place, and each newline is replaced by all that lies between two documents. Where things are
follows from where records end, so nothing is searched for. Records of other shapes are ``documents.py``'s.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Frame", "render_alike"]

_RECORD: Final = b'{"log":"'
#: Takes its place: the end of ``{"message":"``, whose beginning stands before it.
_MESSAGE: Final = b'ssage":"'
_STREAM: Final = '","stream":"'
_STDERR: Final = b"stderr"
_TIME: Final = b'"time":"'
#: Bytes of a time as json-file has it: nine digits of a second, or fewer, or none.
_TIME_BYTES: Final = (30, 29, 28, 27, 26, 25, 24, 23, 22, 20)
_SHORTER_TIMES: Final = np.array(_TIME_BYTES[1:]) + len(_TIME)  # with the name before them
_NEWLINE, _BACKSLASH = 10, 92
#: Numbers of one, two and three digits.
_DIGITS: Final = [
    np.array([b"%0*d" % (digits, number) for number in range(10**digits)], f"S{digits}")
    for digits in (1, 2, 3)
]

_Octets = npt.NDArray[np.uint8]
_Places = npt.NDArray[np.int64]


class Frame(NamedTuple):
    """What surrounds every line of one source."""

    action: bytes  #: up to the number in the id
    action_end: bytes  #: from behind that number up to the message
    fields: bytes  #: from behind the time's text up to the sequence, which are the same in every document
    end: bytes  #: behind the sequence


class _Shape(NamedTuple):
    """What stands between message and time."""

    stdout: bytes
    stderr: bytes
    document: bytes  #: as long as either; the stream is with the rest


def render_alike(records: memoryview, frame: Frame, first: int) -> tuple[memoryview, int] | None:
    """The documents of some records, the first of which has the number ``first``, and how many they are.

    None unless each is a whole line with the attributes of the first, in Docker's order of fields, and their
    numbers have the same count of digits.
    """
    buffer = bytearray(len(records) + 1)
    buffer[0] = _NEWLINE
    buffer[1:] = records
    octets = np.frombuffer(buffer, np.uint8)
    ends = np.flatnonzero(octets == _NEWLINE)
    count = len(ends) - 1
    shape = _shape(bytes(buffer[1 : ends[1]]).decode("latin-1"))
    if shape is None or len(str(first)) != len(str(first + count - 1)):
        return None
    starts = ends[:-1] + 1
    found = _between(buffer, ends[1:], shape)
    if found is None or not (_words(buffer, len(_RECORD))[starts] == _RECORD).all():
        return None
    between, stderr = found
    if (octets[between - 1] == _BACKSLASH).any():  # the characters \n look like the escape of a newline
        return None
    _words(buffer, len(shape.document))[between] = shape.document
    _words(buffer, len(_RECORD))[starts] = _MESSAGE
    _words(buffer, 2)[ends[1:] - 2] = b'",'
    return _put_between(buffer, ends, stderr, frame, first), count


def _shape(record: str) -> _Shape | None:
    """Of a record without its newline; None for another order of fields."""
    name = _TIME.decode()
    at, time = record.find(_STREAM), record.rfind(name)
    attributes = record[at + len(_STREAM) + len('stdout"') : time]
    if at < 0 or time < at or not attributes.startswith(","):
        return None
    stdout, stderr = (f'\\n{_STREAM}{stream}"{attributes}{name}' for stream in ("stdout", "stderr"))
    labels = attributes[1:].replace('"attrs":{', '"labels":{', 1)
    padding = " " * (len(stdout) - len(f'",{labels}"@timestamp":"'))
    document = f'",{padding}{labels}"@timestamp":"'
    return _Shape(*(text.encode("latin-1") for text in (stdout, stderr, document)))


def _words(buffer: bytearray, size: int) -> npt.NDArray[np.bytes_]:
    """All runs of so many bytes, by where they begin."""
    return np.ndarray((len(buffer) - size + 1,), f"S{size}", buffer, strides=(1,))


def _between(buffer: bytearray, ends: _Places, shape: _Shape) -> tuple[_Places, _Places] | None:
    """Where each record has what stands between message and time, and which records are of stderr."""
    times = _times(buffer, ends)
    if times is None:
        return None
    at = times - len(shape.stdout)
    if at[0] < 0:
        return None
    words = _words(buffer, len(shape.stdout))[at]
    others = np.flatnonzero(words != shape.stdout)
    if len(others) and not (words[others] == shape.stderr).all():
        return None
    return at, others


def _times(buffer: bytearray, ends: _Places) -> _Places | None:
    """Where the text of each record's time begins."""
    words = _words(buffer, len(_TIME))
    behind = ends - len('"}')
    at = np.maximum(behind - (_TIME_BYTES[0] + len(_TIME)), 0)
    short = np.flatnonzero(words[at] != _TIME)
    at += len(_TIME)
    if len(short):
        places = np.maximum(behind[short, None] - _SHORTER_TIMES, 0)
        found = words[places] == _TIME
        if not found.any(1).all():
            return None
        at[short] = behind[short] - _SHORTER_TIMES[found.argmax(1)] + len(_TIME)
    return at


def _put_between(buffer: bytearray, ends: _Places, stderr: _Places, frame: Frame, first: int) -> memoryview:
    """Replace each newline by the rest of the document before it and the beginning of the next."""
    number = b"%d" % first
    stream = b'"stream":"stdout",'
    close = b"".join((stream, frame.fields, number, frame.end))
    opening = b"".join((frame.action, number, frame.action_end.removesuffix(_MESSAGE)))
    body = buffer.replace(b"\n", close + opening)
    closes = ends + np.arange(len(ends)) * (len(close) + len(opening) - 1)
    _put_numbers(body, closes[1:] + (len(close) - len(frame.end)), first)
    _put_numbers(body, closes[:-1] + len(close) + len(frame.action) + len(number), first)
    if len(stderr):
        _words(body, len(_STDERR))[closes[1:][stderr] + stream.index(b"stdout")] = _STDERR
    return memoryview(body)[len(close) : len(body) - len(opening)]


def _put_numbers(body: bytearray, behind: _Places, first: int) -> None:
    """Overwrite the number before each place, there ``first``, by ``first`` and those that follow it."""
    numbers = np.arange(first, first + len(behind))
    width = len(str(first))
    while True:
        digits = min(width, 3)
        _words(body, digits)[behind - digits] = _DIGITS[digits - 1].take(numbers % 1000)
        width -= digits
        numbers //= 1000
        if not width or numbers[0] == numbers[-1]:
            return
        behind = behind - digits
