"""Names of containers on user-defined networks: a small resolver at each network's gateway address, port 53.

A name or alias of a container on any of the asking container's networks is answered here; every other question
goes to the host's resolvers as it came. The default bridge has no resolver, as in Docker. What is on which
network is asked of ``Directory``; starting and stopping is ``NameServers.serve``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from runtime.etc_files import host_resolvers
from runtime.networks.dns_message import AAAA, PTR, SERVER_FAILURE, A, MessageError, Question, answer, failure

__all__ = ["Directory", "NameServers"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_PORT = 53
_UPSTREAM_TIMEOUT_SECONDS = 3.0
_CLIENT_TIMEOUT_SECONDS = 10.0
_MOST_FORWARDED = 256  #: questions under way to upstream servers, of all networks together
_MOST_CONNECTIONS = 64


class Directory(Protocol):
    """Who is where. Called from the resolver's thread."""

    def addresses(self, network_id: str, asker: str, name: str) -> Sequence[str]:
        """Addresses behind a name, for the container that asks from an address of this network."""

    def names(self, network_id: str, asker: str, address: str) -> Sequence[str]:
        """The name of the container that has an address."""

    def upstream(self, network_id: str, asker: str) -> Sequence[str]:
        """The container's own DNS servers; none for the host's."""


@dataclass(slots=True)
class Counters:
    """Questions since the start, by what became of them."""

    answered: int = 0
    forwarded: int = 0
    failed: int = 0  #: no upstream server answered
    refused: int = 0  #: too many at once
    malformed: int = 0


class NameServers:
    """The resolvers of all networks, in one thread with one event loop."""

    def __init__(self, directory: Directory, port: int = _PORT) -> None:
        self._directory = directory
        self._port = port
        self._serving: dict[str, tuple[str, _Server]] = {}
        self.counters = Counters()
        self._forwarding = asyncio.Semaphore(_MOST_FORWARDED)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def serve(self, networks: Mapping[str, str]) -> None:
        """Serve exactly these networks: gateway addresses by network id. Idempotent; blocks until it is so."""
        if self._loop is None:
            if not networks:
                return
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="dns", daemon=True)
            self._thread.start()
        self._run(self._serve(dict(networks)))

    def close(self) -> None:
        """Stop serving and end the thread."""
        if self._loop is None or self._thread is None:
            return
        self._run(self._serve({}))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _serve(self, networks: dict[str, str]) -> None:
        for network_id in [known for known in self._serving if known not in networks]:
            await self._serving.pop(network_id)[1].close()
        for network_id, gateway in networks.items():
            if network_id not in self._serving:
                server = _Server(network_id, self._resolve)
                try:
                    await server.open(gateway, self._port)
                except OSError as error:
                    log.warning("serve names of network %s at %s: %s", network_id[:12], gateway, error)
                    await server.close()
                    continue
                self._serving[network_id] = (gateway, server)

    async def _resolve(self, network_id: str, asker: str, data: bytes, tcp: bool) -> bytes | None:
        """The answer to one question; None for bytes that deserve none."""
        try:
            question = Question.parse(data)
        except MessageError:
            self.counters.malformed += 1
            return None
        own = self._own(network_id, asker, question)
        if own is not None:
            self.counters.answered += 1
            return own
        if self._forwarding.locked():
            self.counters.refused += 1
            return failure(question, SERVER_FAILURE)
        async with self._forwarding:
            for server in self._directory.upstream(network_id, asker) or host_resolvers():
                reply = await _ask(server, data, tcp)
                if reply is not None:
                    self.counters.forwarded += 1
                    return reply
        self.counters.failed += 1
        return failure(question, SERVER_FAILURE)

    def _own(self, network_id: str, asker: str, question: Question) -> bytes | None:
        if question.kind == PTR and question.address is not None:
            names = self._directory.names(network_id, asker, str(question.address))
            return answer(question, names=names) if names else None
        if question.kind in (A, AAAA):
            addresses = self._directory.addresses(network_id, asker, question.name)
            if addresses:  # no AAAA: said at once, or the client waits for an upstream server's no
                return answer(question, addresses if question.kind == A else ())
        return None


Resolve = Callable[[str, str, bytes, bool], Coroutine[Any, Any, bytes | None]]


class _Server(asyncio.DatagramProtocol):
    """The two sockets of one network."""

    def __init__(self, network_id: str, resolve: Resolve) -> None:
        self._network_id = network_id
        self._resolve = resolve
        self._transport: asyncio.DatagramTransport | None = None
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0

    async def open(self, address: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(address, port))
        self._listener = await asyncio.start_server(self._connected, address, port)

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        if self._listener is not None:
            self._listener.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        task = asyncio.get_running_loop().create_task(self._reply(data, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reply(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        reply = await self._resolve(self._network_id, str(addr[0]), data, False)
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asker = str(writer.get_extra_info("peername")[0])
        self._connections += 1
        try:
            if self._connections > _MOST_CONNECTIONS:
                return
            async with asyncio.timeout(_CLIENT_TIMEOUT_SECONDS):
                while True:
                    data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                    reply = await self._resolve(self._network_id, asker, data, True)
                    if reply is None:
                        return
                    writer.write(len(reply).to_bytes(2, "big") + reply)
                    await writer.drain()
        except (asyncio.IncompleteReadError, TimeoutError, ConnectionError):
            return  # the client went away, as clients do after their answer
        finally:
            self._connections -= 1
            writer.close()


class _Upstream(asyncio.DatagramProtocol):
    """One question to one server; the reply must come from it (the socket is connected) with our id."""

    def __init__(self, identity: bytes) -> None:
        self._identity = identity
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        if data[:2] == self._identity and not self.reply.done():
            self.reply.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(exc)


async def _ask(server: str, data: bytes, tcp: bool) -> bytes | None:
    try:
        async with asyncio.timeout(_UPSTREAM_TIMEOUT_SECONDS):
            return await (_ask_tcp(server, data) if tcp else _ask_udp(server, data))
    except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
        log.debug("ask DNS server %s: %s", server, error or "no answer in time")
        return None


async def _ask_udp(server: str, data: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: _Upstream(data[:2]), remote_addr=(server, _PORT)
    )
    try:
        transport.sendto(data)
        return await protocol.reply
    finally:
        transport.close()


async def _ask_tcp(server: str, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server, _PORT)
    try:
        writer.write(len(data).to_bytes(2, "big") + data)
        return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
