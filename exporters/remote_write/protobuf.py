"""``WriteRequest`` of Prometheus' remote-write protocol 1.0 (prometheus/prompb), a block at a time.

The bytes of a request differ between two intervals only in its values and its time: they are laid out
once for a set of series, and numpy puts the new values in. Compressing and sending are ``exporter.py``'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["STALE", "Template", "encode_labels", "varint"]

#: The value that says a series has ended: a NaN with these bits (prometheus/model/value).
STALE = np.array([0x7FF0000000000002], dtype="<u8").view("<f8")

# Field numbers and wire types of prompb/types.proto and remote.proto:
# WriteRequest.timeseries = 1, TimeSeries.labels = 1, .samples = 2, Label.name = 1, .value = 2: all length-delimited;
# Sample.value = 1: 64 bits, .timestamp = 2: varint.
_TIMESERIES, _LABELS, _SAMPLES, _NAME, _VALUE = b"\x0a", b"\x0a", b"\x12", b"\x0a", b"\x12"
_SAMPLE_VALUE, _SAMPLE_TIME = b"\x09", b"\x10"
_TIME_BYTES = 6  # of a varint between 2^35 and 2^42 ms: 1971 to 2109
_VALUE_AT = 3  # in a sample: its tag, its length, the value's tag
_SAMPLE_LENGTH = 1 + 8 + 1 + _TIME_BYTES
_TIME_AT = _VALUE_AT + 8 + 1


def varint(number: int) -> bytes:
    """Base 128, low bits first, the top bit of each byte but the last set."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def encode_labels(labels: Iterable[tuple[str, str]]) -> bytes:
    """The label fields of a ``TimeSeries``, sorted by name as the protocol wants them; empty values left out."""
    out = []
    for name, value in sorted(labels):
        if value:
            key, text = name.encode(), value.encode()
            label = _NAME + varint(len(key)) + key + _VALUE + varint(len(text)) + text
            out.append(_LABELS + varint(len(label)) + label)
    return b"".join(out)


class Template:
    """A request for one sample of each of these series (each as ``encode_labels`` made it)."""

    def __init__(self, series: Sequence[bytes]) -> None:
        sample = (
            _SAMPLES + varint(_SAMPLE_LENGTH) + _SAMPLE_VALUE + bytes(8) + _SAMPLE_TIME + bytes(_TIME_BYTES)
        )
        parts: list[bytes] = []
        starts = []
        lengths = []
        at = 0
        for labels in series:
            head = _TIMESERIES + varint(len(labels) + len(sample)) + labels
            starts.append(at + len(head))
            lengths.append(len(labels))
            parts += (head, sample)
            at += len(head) + len(sample)
        self.series = len(starts)
        self._bytes = np.frombuffer(bytearray(b"".join(parts)), dtype=np.uint8)
        self._samples = np.array(starts, dtype=np.int64)
        self._lengths = np.array(lengths, dtype=np.int32)

    def labels(self) -> Iterator[bytes]:
        """Each series as it was given."""
        raw = self._bytes.tobytes()
        for start, length in zip(self._samples.tolist(), self._lengths.tolist(), strict=True):
            yield raw[start - length : start]

    def fill(self, values: npt.NDArray[np.float64], time_ms: int) -> bytes:
        """The request with these values, all of one moment, in milliseconds since the epoch.

        Raises ValueError for a time outside 1971 to 2109 (a clock that was never set).
        """
        moment = varint(time_ms) if time_ms > 0 else b""
        if len(moment) != _TIME_BYTES:
            raise ValueError(f"the clock says {time_ms} ms since 1970: expected a year from 1971 to 2109")
        if self.series:
            raw = np.ascontiguousarray(values, dtype="<f8").view(np.uint8)
            starts = self._samples[:, None]
            self._bytes[starts + (_VALUE_AT + np.arange(8))] = raw.reshape(-1, 8)
            self._bytes[starts + (_TIME_AT + np.arange(_TIME_BYTES))] = np.frombuffer(moment, dtype=np.uint8)
        return self._bytes.tobytes()
