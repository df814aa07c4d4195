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

#: From the end of one record to the message of the next.
_JOINT: Final = b'"}\n{"log":"'
#: These lie around the first and the last record, so that every record is between two joints.
_BEFORE, _BEHIND = _JOINT[:3], _JOINT[3:]
#: The end of ``{"message":"``, whose beginning stands before it.
_MESSAGE: Final = b'ssage":"'
#: Takes a joint's place.
_OVER_JOINT: Final = b'",\n' + _MESSAGE
_STREAM: Final = '","stream":"'
_STDERR: Final = b"stderr"
_TIME: Final = b'"time":"'
_TIME_WORD: Final = int.from_bytes(_TIME, "little")
#: Bytes of a time as json-file has it: nine digits of a second, or fewer, or none.
_TIME_BYTES: Final = (30, 29, 28, 27, 26, 25, 24, 23, 22, 20)
_SHORTER_TIMES: Final = np.array(_TIME_BYTES[1:]) + len(_TIME)  # with the name before them
_NEWLINE = 10
#: Numbers of one, two and three digits.
_DIGITS: Final = [
    np.array([b"%0*d" % (digits, number) for number in range(10**digits)], f"S{digits}")
    for digits in (1, 2, 3)
]

_Places = npt.NDArray[np.int64]
_Words = npt.NDArray[np.bytes_]


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
    buffer = bytearray().join((_BEFORE, records, _BEHIND))
    octets = np.frombuffer(buffer, np.uint8)
    ends = np.flatnonzero(octets == _NEWLINE)
    count = len(ends) - 1
    shape = _shape(bytes(records[: ends[1] - ends[0] - 1]).decode("latin-1"))
    if shape is None or len(str(first)) != len(str(first + count - 1)):
        return None
    if count * len(shape.stdout) > len(buffer):  # not all have attributes that are so long
        return None
    joints = ends - (len(_BEFORE) - 1)
    if _words(buffer, len(_JOINT))[joints].tobytes() != _JOINT * len(joints):
        return None
    found = _between(buffer, ends[1:], shape)
    if found is None:
        return None
    between, stderr = found
    if (between <= ends[:-1]).any():  # of the record before
        return None
    if b"\\" in octets[between - 1].tobytes():  # the characters \n look like the escape of a newline
        return None
    _words(buffer, len(shape.document))[between] = shape.document
    _words(buffer, len(_JOINT))[joints] = _OVER_JOINT
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


def _words(buffer: bytearray, size: int) -> _Words:
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
    if words.tobytes() == shape.stdout * len(at):
        return at, np.array([], np.int64)
    others = np.flatnonzero(words != shape.stdout)
    if len(others) and not (words[others] == shape.stderr).all():
        return None
    return at, others


def _times(buffer: bytearray, ends: _Places) -> _Places | None:
    """Where the text of each record's time begins."""
    words = _words(buffer, len(_TIME))
    behind = ends - len('"}')
    at = np.maximum(behind - (_TIME_BYTES[0] + len(_TIME)), 0)
    short = np.flatnonzero(words[at].view("<u8") != _TIME_WORD)
    at += len(_TIME)
    if len(short):
        places = np.maximum(behind[short, None] - _SHORTER_TIMES, 0)
        found = words[places].view("<u8") == _TIME_WORD
        if not found.any(1).all():
            return None
        at[short] = behind[short] - _SHORTER_TIMES[found.argmax(1)] + len(_TIME)
    return at


def _put_between(buffer: bytearray, ends: _Places, stderr: _Places, frame: Frame, first: int) -> memoryview:
    """Replace each newline by the rest of the document before it and the beginning of the next."""
    numbers = _numbers(first, len(ends) - 1)
    number = bytes(numbers[0])
    stream = b'"stream":"stdout",'
    close = b"".join((stream, frame.fields, number, frame.end))
    opening = b"".join((frame.action, number, frame.action_end.removesuffix(_MESSAGE)))
    body = buffer.replace(b"\n", close + opening)
    closes = ends + np.arange(len(ends)) * (len(close) + len(opening) - 1)
    begin, end = int(closes[0]) + len(close), int(closes[-1]) + len(close)
    sequences = closes[1:] + (len(close) - len(frame.end) - len(number))
    _words(body, len(number))[sequences] = numbers
    _words(body, len(number))[closes[:-1] + (len(close) + len(frame.action))] = numbers
    if len(stderr):
        _words(body, len(_STDERR))[closes[1:][stderr] + stream.index(b"stdout")] = _STDERR
    return memoryview(body)[begin:end]


def _numbers(first: int, count: int) -> _Words:
    """``first`` and those that follow it, which have as many digits, as text."""
    width = len(str(first))
    if width <= 3:
        return _DIGITS[width - 1][first : first + count]
    numbers = np.empty(count, f"S{width}")
    high = np.ndarray((count,), f"S{width - 3}", numbers, strides=(width,))
    low = np.ndarray((count,), "S3", numbers, offset=width - 3, strides=(width,))
    at = 0
    while at < count:
        thousand, begin = divmod(first + at, 1000)
        end = min(begin + count - at, 1000)
        rows = slice(at, at + end - begin)
        high[rows] = b"%d" % thousand
        low[rows] = _DIGITS[2][begin:end]
        at = rows.stop
    return numbers
