"""The agent's inputs by configuration: GELF over UDP and TCP, GELF over HTTP, forward.

Builds with their security those that are switched on, and tells where they listen; what they take in is
``collector/inputs``'.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING

from collector.enrich import Sources
from collector.store import Store
from taffrail.config import Config
from taffrail.input_tls import input_tls
from taffrail.wiring import Endpoints, split_address

if TYPE_CHECKING:
    from collector.inputs.forward import ForwardInput
    from collector.inputs.gelf import GelfInput
    from collector.inputs.gelf_http import GelfHttpInput
    from collector.inputs.received import InputCounters

    Input = GelfInput | GelfHttpInput | ForwardInput

__all__ = ["Inputs", "address_text"]


class Inputs:
    """Those that are switched on."""

    def __init__(self, config: Config, store: Store, sources: Sources) -> None:
        self.endpoints = Endpoints()  #: where they listen, once started
        self._config = config
        self._store = store
        self._sources = sources
        self._started: dict[str, Input] = {}

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Bind them all; the stack stops them. Raises OSError naming what cannot be bound."""
        given = self._config.inputs
        at: dict[str, str] = {}
        if given.gelf:
            from collector.inputs.gelf import GelfInput

            gelf = GelfInput(*split_address(given.gelf), self._store, self._sources, tls=self._gelf_tls())
            at["gelf"] = await self._start("gelf", gelf, stack)
        if given.forward:
            from collector.inputs.forward import ForwardInput
            from taffrail.forward_security import forward_security, forward_tls

            forward = ForwardInput(
                *split_address(given.forward),
                self._store,
                self._sources,
                security=forward_security(self._config),
                tls=forward_tls(self._config),
            )
            at["forward"] = await self._start("forward", forward, stack)
        if given.gelf_http:
            from collector.inputs.gelf_http import GelfHttpInput

            posted = GelfHttpInput(
                *split_address(given.gelf_http), self._store, self._sources, tls=self._gelf_tls()
            )
            at["gelf_http"] = await self._start("gelf-http", posted, stack)
        self.endpoints = Endpoints(**at)

    @property
    def counters(self) -> dict[str, InputCounters]:
        """What each has counted, by its name."""
        order = ("gelf", "gelf-http", "forward")
        return {name: self._started[name].counters for name in order if name in self._started}

    @property
    def addresses(self) -> list[str]:
        """``host:port`` of those that listen."""
        at = self.endpoints
        return [part for part in (at.gelf, at.gelf_http, at.forward) if part]

    async def _start(self, name: str, receiver: Input, stack: contextlib.AsyncExitStack) -> str:
        await receiver.start()
        stack.push_async_callback(receiver.stop)
        self._started[name] = receiver
        return address_text(*receiver.address)

    def _gelf_tls(self) -> ssl.SSLContext | None:
        return input_tls("gelf_tls", self._config.inputs.gelf_tls_cert, self._config.inputs.gelf_tls_key)


def address_text(host: str, port: int) -> str:
    """``host:port``, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
