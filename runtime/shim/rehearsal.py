"""Plays a container's output through a shim's parts in the template, so that what is forked finds them warm.

The first times a function runs, the interpreter writes into its code and its caches, and imports what is
imported late. Done once in the template, those pages stay shared; otherwise every shim has its own copies.
Nothing of it is kept. What is imported beforehand is ``runtime/shim/preload.py``'s business.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from logdrivers.block import Stream
from logdrivers.driver import Info
from logdrivers.registry import get
from runtime.shim import streams
from runtime.shim.attached import Attached
from runtime.shim.control import ControlServer
from runtime.shim.copying import open_copier
from runtime.shim.delivery import ShimDelivery
from runtime.shim.exit_status import Init
from runtime.shim.linux import process_start
from runtime.shim.messages import receive, send
from runtime.shim.pump import Pump
from runtime.shim.reactor import READ, Reactor
from runtime.shim.spec import ShimSpec
from runtime.shim.stdin import ContainerStdin
from runtime.shim.template_link import TemplateLink

__all__ = ["rehearse"]

log = logging.getLogger(__name__)

#: Functions that begin or end a life run once a time; more than this changes little.
_TIMES = 5
#: Code is adapted after it has run eight times.
_WRITES = 12
_DELIVERY_SECONDS = 2.0


def rehearse(directory: Path) -> None:
    """Run it in ``directory``, which is made and removed. Never raises; what fails is logged.

    To be called while there are no threads; there are none afterwards, and no more descriptors than before.
    """
    here = Path.cwd()
    shutil.rmtree(directory, ignore_errors=True)
    try:
        for turn in range(_TIMES):
            _play(directory / f"json-{turn}", "json-file", {})
            with _receiver() as address:
                _play(directory / f"gelf-{turn}", "gelf", {"gelf-address": address})
    except (OSError, ValueError) as error:
        log.warning("rehearse in %s: %s; shims will take more memory", directory, error)
    finally:
        os.chdir(here)
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _receiver() -> Iterator[str]:
    """A GELF receiver on the loopback that reads nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"udp://127.0.0.1:{sock.getsockname()[1]}"


def _play(directory: Path, driver: str, options: Mapping[str, str]) -> None:
    """The life of a container that writes a few lines."""
    directory.mkdir(mode=0o700, parents=True)
    with contextlib.ExitStack() as stack:
        engine, control = socket.socketpair()
        stack.callback(engine.close)
        spec = _spec_over(engine, control, directory, driver, options)
        streams.make(spec)
        os.chdir(directory)  # the control socket's name is relative
        for fd in streams.hold(spec).values():
            stack.callback(os.close, fd)
        reactor = Reactor()
        stack.callback(reactor.close)
        server = ControlServer(reactor, lambda _connection, _request: {})
        connection = server.add(control)
        stack.callback(connection.close)
        stack.callback(server.close)
        _write(spec, reactor, engine, stack)


def _spec_over(
    engine: socket.socket, control: socket.socket, directory: Path, driver: str, options: Mapping[str, str]
) -> ShimSpec:
    """A specification as it comes from the engine."""
    name = "0" * 64
    info = Info(name, "/rehearsal", "", "", ("sh",), 0, directory / "log", options=options)
    spec = ShimSpec(
        container_id=name,
        bundle=directory,
        run_dir=directory,
        driver=driver,
        info=info,
        runtime_root=directory,
        uid=os.getuid(),
        gid=os.getgid(),
    )
    send(engine, {"op": "fork", "spec": spec.to_json(), "mode": "run"})
    request, _ = receive(control)
    return ShimSpec.from_json(request["spec"])


def _write(spec: ShimSpec, reactor: Reactor, engine: socket.socket, stack: contextlib.ExitStack) -> None:
    copier = open_copier(spec)
    stack.callback(copier.close)
    copier.begin_life(time.time_ns())
    pump = Pump(spec, copier, reactor)
    stack.callback(pump.close)
    pump.paused = Attached().hold_back
    ContainerStdin(spec, reactor, TemplateLink(spec, spec.run_dir)).open()
    output = streams.open_child_end(spec, Stream.STDOUT.text)
    stack.callback(os.close, output)
    delivery = ShimDelivery(spec, get(spec.driver))
    if delivery.start():
        stack.callback(delivery.close)
        copier.on_append = delivery.offer
    Init(os.getpid(), process_start(os.getpid()) or 0, time.time_ns(), "").write(spec.run_dir)
    pidfd = os.pidfd_open(os.getpid())
    stack.callback(os.close, pidfd)
    reactor.watch(pidfd, READ, lambda _events: None)
    for _ in range(_WRITES):
        os.write(output, b"a line\nanother\n")
        engine.sendall(b'{"op":"counters","id":1}\n')
        for _ in range(3):
            pump.wait_seconds(pump.round())
            reactor.poll(0)
        engine.recv(65536)
    reactor.forget(pidfd)
    give_up = time.monotonic() + _DELIVERY_SECONDS
    while delivery.behind() and time.monotonic() < give_up:
        reactor.poll(0.001)
