"""The whole page of ``/metrics``, put together from containers, host and our own metrics while it is compressed.

A page of many containers is megabytes; only its compressed form is ever held as a whole, and for a second at most.
"""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass
from typing import Any

from isal import isal_zlib

from collector.sampler import Sampler
from exporters.prometheus.exposition import Exposition
from exporters.prometheus.node_page import NodePage
from exporters.prometheus.plan import Sink
from exporters.prometheus.self_metrics import SelfMetrics

__all__ = ["Only", "Page", "SharedPage"]

#: Bytes that are compressed at a time.
_PIECE = 1 << 16
#: zlib's name for a window of 32 KiB in a gzip container.
_GZIP = 31


@dataclass(frozen=True, slots=True)
class Only:
    """A part of the page: series of every kind that is named, none of our own."""

    names: frozenset[str] = frozenset()  #: families
    ids: frozenset[str] = frozenset()  #: of containers, as ``Exposition.write`` takes them
    groups: frozenset[str] = frozenset()  #: of host counters; containers' series are left out then

    @property
    def everything(self) -> bool:
        """Whether nothing is named."""
        return not (self.names or self.ids or self.groups)


class Page:
    """Makes pages. Its methods take long and are to be called in a thread."""

    def __init__(
        self,
        exposition: Exposition,
        sampler: Sampler,
        self_metrics: SelfMetrics | None = None,
        max_age: float = 1.0,
        node: NodePage | None = None,
    ) -> None:
        """A sampling pass is made for a page when the newest is older than ``max_age`` seconds."""
        self._exposition = exposition
        self._sampler = sampler
        self._own = self_metrics
        self._max_age = max_age
        self._node = node

    def write(self, sink: Sink, only: Only | None = None) -> None:
        """Give a page to ``sink`` piece by piece, the whole one or a part of it."""
        if only is None or not only.groups:
            self._sampler.sample_if_older(self._max_age)
            names, ids = (only.names, only.ids) if only else ((), ())
            self._exposition.write(sink, names=names, ids=ids)
        if self._node is not None and (only is None or not only.ids):
            self._node.write(sink, only.names if only else (), only.groups if only else ())
        if self._own is not None and only is None:
            self._own.write(sink)

    def plain(self, only: Only | None = None) -> bytes:
        """A page."""
        page = io.BytesIO()  # one growing piece, which the system gets back, and not many small ones
        self.write(page.write, only)
        return page.getvalue()

    def gzip(self, only: Only | None = None) -> bytes:
        """A page, compressed."""
        packer = _Packer()
        self.write(packer.add, only)
        return packer.finish()

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of host counters that can be asked for alone."""
        return self._node.groups if self._node else ()


class SharedPage:
    """The whole page for those who ask at the same time: one is made for all of a second."""

    def __init__(self, page: Page, max_age: float = 1.0) -> None:
        """``max_age`` is how many seconds ago a page may have been begun to be had by another."""
        self._page = page
        self._max_age = max_age
        self._made: dict[bool, tuple[float, asyncio.Task[bytes]]] = {}

    async def get(self, compress: bool) -> bytes:
        """The page, as gzip or plain. Raises what making it raises."""
        loop = asyncio.get_running_loop()
        begun, task = self._made.get(compress, (0.0, None))
        if task is None or (task.done() and loop.time() - begun >= self._max_age):
            make = self._page.gzip if compress else self._page.plain
            task = loop.create_task(asyncio.to_thread(make))
            self._made[compress] = loop.time(), task
            task.add_done_callback(lambda done: self._keep(compress, done))
        return await asyncio.shield(task)  # one who goes away does not take it from the others

    def _keep(self, compress: bool, task: asyncio.Task[bytes]) -> None:
        """Let go of a page that is old enough, at once of one that could not be made."""
        begun, current = self._made.get(compress, (0.0, None))
        if current is task:
            failed = task.cancelled() or task.exception() is not None
            loop = asyncio.get_running_loop()
            wait = 0 if failed else max(begun + self._max_age - loop.time(), 0)
            loop.call_later(wait, self._forget, compress, task)

    def _forget(self, compress: bool, task: asyncio.Task[bytes]) -> None:
        if self._made.get(compress, (0.0, None))[1] is task:
            del self._made[compress]


class _Packer:
    """A gzip stream that is fed in pieces of a useful size."""

    def __init__(self) -> None:
        self._compressor: Any = isal_zlib.compressobj(1, isal_zlib.DEFLATED, _GZIP)
        self._waiting: list[bytes] = []
        self._size = 0
        self._packed: list[bytes] = []

    def add(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)
        if self._size >= _PIECE:
            self._pack()

    def finish(self) -> bytes:
        self._pack()
        self._packed.append(self._compressor.flush())
        return b"".join(self._packed)

    def _pack(self) -> None:
        self._packed.append(self._compressor.compress(b"".join(self._waiting)))
        self._waiting.clear()
        self._size = 0
