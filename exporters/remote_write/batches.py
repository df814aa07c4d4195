"""From a page of metrics to compressed requests, stale markers for what has ended included.

Keeps what it made of the series while their set stays the same, so that an interval costs splitting the
page, its numbers and the compression. Knows no network and no disk.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import cramjam
import numpy as np
import numpy.typing as npt

from exporters.remote_write.page import parse_series, split_page
from exporters.remote_write.protobuf import STALE, Template, encode_labels

__all__ = ["Batch", "Batches"]

#: Samples of one request: what Prometheus' own receivers and most others take without a setting.
_MOST = 10_000


class Batch(NamedTuple):
    """One request: a snappy-compressed ``WriteRequest``."""

    body: bytes
    samples: int
    time_ms: int


class Batches:
    """Makes requests; one object for one destination, used by one thread at a time."""

    def __init__(self, external_labels: Mapping[str, str], most: int = _MOST) -> None:
        self.unreadable = 0  #: samples left out because their series or value cannot be read, or came twice
        self.stale_markers = 0  #: series told to have ended
        self._external = dict(external_labels)
        self._most = most
        self._keys: list[bytes] = []
        self._positions: list[int] = []  # of the series in the templates, among the keys
        self._templates: list[Template] = []
        self._left_out = 0

    def of(self, page: bytes, time_ms: int) -> Iterator[Batch]:
        """The requests that say what this page says, and what it no longer says.

        Raises ValueError when the page's values or the time cannot be sent.
        """
        values, keys = self._read(page)
        gone: Sequence[bytes] = () if keys is None else self._lay_out(keys)
        self.unreadable += self._left_out
        if self._left_out:
            values = values[self._positions]
        at = 0
        for template in self._templates:
            part = values[at : at + template.series]
            at += template.series
            yield _batch(template, part, time_ms)
        for first in range(0, len(gone), self._most):
            template = Template(gone[first : first + self._most])
            self.stale_markers += template.series
            yield _batch(template, np.repeat(STALE, template.series), time_ms)

    def _read(self, page: bytes) -> tuple[npt.NDArray[np.float64], list[bytes] | None]:
        """All values, and the series where they are not those of the page before."""
        numbers = array("d")
        keys: list[bytes] | None = None
        at = 0
        for part, texts in split_page(page):
            numbers.extend(map(float, texts))
            if keys is None:
                if part == self._keys[at : at + len(part)]:
                    at += len(part)
                    continue
                keys = self._keys[:at]
            keys += part
        if keys is None and at < len(self._keys):
            keys = self._keys[:at]
        return np.frombuffer(numbers, dtype="<f8") if numbers else np.empty(0), keys

    def _lay_out(self, keys: list[bytes]) -> list[bytes]:
        """Bring the templates up to the series there are now; the labels of those there no longer are."""
        # Kept in the templates only: a page has its labels in memory once as text and once encoded.
        before = (labels for template in self._templates for labels in template.labels())
        known = {
            self._keys[position]: labels for position, labels in zip(self._positions, before, strict=True)
        }
        encoded: dict[bytes, int] = {}
        for position, key in enumerate(keys):
            labels = known.get(key) or self._encode(key)
            if labels:  # two texts may be one series (another order of labels): the first of them stays
                encoded.setdefault(labels, position)
        gone = [labels for labels in known.values() if labels not in encoded]
        series = list(encoded)
        self._keys = keys
        self._positions = list(encoded.values())
        self._left_out = len(keys) - len(series)
        self._templates = [
            Template(series[first : first + self._most]) for first in range(0, len(series), self._most)
        ]
        return gone

    def _encode(self, key: bytes) -> bytes:
        try:
            name, labels = parse_series(key)
        except ValueError:
            return b""
        return encode_labels({**self._external, **dict(labels), "__name__": name}.items())


def _batch(template: Template, values: npt.NDArray[np.float64], time_ms: int) -> Batch:
    body = bytes(cramjam.snappy.compress_raw(template.fill(values, time_ms)))
    return Batch(body, template.series, time_ms)
