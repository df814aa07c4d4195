"""The agent: builds the collector's parts from the configuration, wires them, runs them until told to stop.

This is the composition root of the collecting side; nothing below it knows which parts there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Middleware

from collector.discovery.cgroups import CgroupDiscovery
from collector.discovery.engine_api import EngineDiscovery
from collector.history.archive import Archive
from collector.history.reader import HistoryReader
from collector.history.recorder import Recorder
from collector.inputs.kernel_log import KernelLog
from collector.inputs.tails import Tails
from dashboards.web.api import Api
from dashboards.web.history import HistoryApi
from dashboards.web.page import add_page
from exporters.prometheus.http import page_of, routes
from exporters.prometheus.lane_metrics import lane_metrics
from exporters.prometheus.self_metrics import cgroup_metrics, discovery_metrics, sampling_metrics
from exporters.prometheus.service_discovery import Discovery, add_service_discovery
from taffrail.agent_exporters import make_elasticsearch, make_remote_write
from taffrail.agent_inputs import Inputs, address_text
from taffrail.agent_parts import Core, make_core
from taffrail.agent_processes import add_processes
from taffrail.config import Config
from taffrail.config_checks import without_effect
from taffrail.heap import freeze, keep_trimmed
from taffrail.history_metrics import clock_metrics, history_metrics
from taffrail.http_security import http_tls, refuse_if_open, token_check
from taffrail.log_metrics import (
    delivery_metrics,
    exporter_metrics,
    gap_metrics,
    input_metrics,
    kernel_log_metrics,
    remainder_metrics,
    store_metrics,
    tail_metrics,
)
from taffrail.tokens import read_tokens
from taffrail.wiring import Endpoints, make_paths, split_address, withdraw_endpoints, write_endpoints

__all__ = ["SWITCH_SECONDS", "Agent"]

log = logging.getLogger(__name__)

#: A part that runs: its name and its coroutine.
#: A part's name, and what it does until it is cancelled; begun once every part is built.
Work = tuple[str, Callable[[], Coroutine[None, None, None]]]

#: So long the event loop waits at most for a thread that computes, as one that makes a page or a sampling pass.
SWITCH_SECONDS = 0.001

#: Engine sockets followed when the configuration names none, beside our own.
OTHER_ENGINES = (Path("/run/docker.sock"), Path("/run/podman/podman.sock"))


class Agent:
    """One collector. ``run`` returns after SIGINT or SIGTERM, everything stored and closed."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._paths = make_paths(config)
        self._endpoints = Endpoints()

    async def run(self) -> None:
        """Build, start, serve, stop.

        Raises OSError naming what could not be opened or bound.
        """
        _raise_descriptor_limit()
        sys.setswitchinterval(SWITCH_SECONDS)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        for setting in without_effect(self._config):
            log.warning("%s", setting)
        self._paths.run.mkdir(parents=True, exist_ok=True)
        self._paths.collector_state.mkdir(parents=True, exist_ok=True)
        async with contextlib.AsyncExitStack() as stack:
            tasks = await self._build(stack)
            freeze()
            running = [asyncio.create_task(_named(name, work())) for name, work in tasks]
            stack.push_async_callback(_cancel, running)
            url = f"http{'s' if self._config.http.tls_cert else ''}://{self._endpoints.http}/"
            log.info("the agent is ready on %s and %s", self._paths.agent_socket, url)
            waiting = asyncio.create_task(stop.wait())
            done, _ = await asyncio.wait([waiting, *running], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {waiting}:
                task.result()  # a part that ends is a fault: let it end the agent, the supervisor starts it again
            log.info("stopping")

    async def _build(self, stack: contextlib.AsyncExitStack) -> list[Work]:
        """Every part, started or with what it does in the answer; the stack stops them in the opposite order."""
        config, paths = self._config, self._paths
        core = make_core(config, paths, stack)
        containers, store, sampler, own = core.containers, core.store, core.sampler, core.own

        inputs = Inputs(config, store, core.sources)
        await inputs.start(stack)
        own.register(input_metrics(inputs.counters))
        tails = Tails(containers, store, core.sources, inputs.addresses)
        discoveries = [EngineDiscovery(socket, containers, paths.proc) for socket in self._engines()]
        work: list[Work] = [
            ("sampling", sampler.run),
            ("tails", tails.run),
            ("memory", keep_trimmed),
            *((f"lane {lane.name}", lane.run) for lane in core.lanes),
            *((f"discovery on {discovery.socket}", discovery.run) for discovery in discoveries),
        ]
        if config.collector.cgroups:
            work.append(self._cgroups(core, discoveries))
        if config.collector.oom_log:
            kernel_log = KernelLog(containers, store, core.sources, paths.proc)
            own.register(kernel_log_metrics(kernel_log))
            work.append(("kernel log", kernel_log.run))
        if config.collector.final_records:
            from collector.final_records import FinalRecords  # memory that few agents need

            work.append(("final records", FinalRecords(containers, sampler, store, core.sources).run))
        work += self._exports(core)
        own.register(sampling_metrics(sampler, core.exposition))
        own.register(lane_metrics(core.lanes))
        own.register(clock_metrics(core.clock))
        own.register(discovery_metrics(discoveries))
        own.register(store_metrics(store))
        own.register(tail_metrics(tails))
        own.register(delivery_metrics(containers, paths.state / "plugin"))
        own.register(gap_metrics(containers))
        own.register(remainder_metrics(paths.engine_state / "undelivered", paths.state / "plugin"))

        app = web.Application(middlewares=self._middlewares())
        work += self._pages(stack, app, core)
        await self._serve(stack, app, inputs)
        return work

    def _cgroups(self, core: Core, discoveries: Sequence[EngineDiscovery]) -> Work:
        """Discovery by the cgroup tree, which leaves to an engine what the engine is heard to tell."""
        cgroups = CgroupDiscovery(
            core.containers,
            core.roots,
            lambda engine: any(each.follows(engine) for each in discoveries),
        )
        core.own.register(cgroup_metrics(cgroups))
        return "discovery by cgroups", cgroups.run

    def _exports(self, core: Core) -> list[Work]:
        """Those who send elsewhere what the agent has."""
        work: list[Work] = []
        if self._config.elasticsearch.hosts:
            exporter = make_elasticsearch(self._config, self._paths, core.store)
            work.append(("elasticsearch", exporter.run))
            core.own.register(exporter_metrics(exporter))
        else:
            core.store.drop_cursor("elasticsearch")  # retention is not to wait for an exporter that is gone
        if self._config.remote_write.url:
            page = page_of(core.exposition, core.sampler, core.own, node=core.node)
            work.append(("remote write", make_remote_write(self._config, self._paths, page, core.own).run))
        return work

    def _pages(self, stack: contextlib.AsyncExitStack, app: web.Application, core: Core) -> list[Work]:
        """Everything served over HTTP, and the work that stands behind it."""
        containers, host = core.containers, self._config.collector.host
        routes(app, core.exposition, core.sampler, core.own, node=core.node)
        Api(containers, core.sampler, core.store, host).add_routes(app)
        reader, work = self._history(stack, core)
        HistoryApi(reader, host).add_routes(app)
        work += add_processes(self._config, self._paths, core, reader, app, stack)
        add_service_discovery(app, Discovery(containers, self._paths.proc, host))
        add_page(app)
        return work

    def _history(self, stack: contextlib.AsyncExitStack, core: Core) -> tuple[HistoryReader, list[Work]]:
        """Who answers questions about the past, and the recorder's work where it is kept on disk."""
        host, limit = self._config.collector.host, self._config.collector.history_max_size
        containers, sampler = core.containers, core.sampler
        if not limit:
            return HistoryReader(containers, sampler, None, host), []
        archive = Archive(self._paths.collector_state / "history", limit, clock=core.clock)
        stack.callback(archive.close)
        recorder = Recorder(sampler, archive, host)
        stack.callback(recorder.record, unfinished=True)
        core.own.register(history_metrics(archive, recorder))
        return HistoryReader(containers, sampler, archive, host), [("history", recorder.run)]

    def _engines(self) -> tuple[Path, ...]:
        if self._config.collector.engines:
            return tuple(map(Path, self._config.collector.engines))
        return (self._paths.engine_socket, *OTHER_ENGINES)

    def _middlewares(self) -> list[Middleware]:
        refuse_if_open(self._config.http)
        path = self._config.http.token_file
        return [token_check(read_tokens(path, "[http] token_file"))] if path else []

    async def _serve(self, stack: contextlib.AsyncExitStack, app: web.Application, inputs: Inputs) -> None:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        host, port = split_address(self._config.http.address)
        site = web.TCPSite(runner, host, port, ssl_context=http_tls(self._config.http))
        await site.start()
        self._endpoints = replace(inputs.endpoints, http=address_text(*runner.addresses[-1][:2]))
        # Whoever finds the socket answering may read where everything listens.
        write_endpoints(self._paths, self._endpoints)
        stack.callback(withdraw_endpoints, self._paths)
        self._paths.agent_socket.unlink(missing_ok=True)
        await web.UnixSite(runner, str(self._paths.agent_socket)).start()
        self._paths.agent_socket.chmod(0o660)


def _raise_descriptor_limit() -> None:
    """As many open files as we may: sampling keeps about 17 of them for each container."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _named(name: str, work: Coroutine[None, None, None]) -> None:
    """Run one part; say which it was if it fails."""
    try:
        await work
    except Exception:
        log.exception("%s failed", name)
        raise


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
