"""The agent: builds the collector's parts from the configuration, wires them, runs them until told to stop.

This is the composition root of the collecting side; nothing below it knows which parts there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import ssl
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.typedefs import Middleware

from collector.discovery.cgroups import CgroupDiscovery
from collector.discovery.engine_api import EngineDiscovery
from collector.discovery.registry import Containers
from collector.enrich import Sources
from collector.history.archive import Archive
from collector.history.reader import HistoryReader
from collector.history.recorder import Recorder
from collector.host.collection import HostGroups
from collector.inputs.forward import ForwardInput
from collector.inputs.gelf import GelfInput
from collector.inputs.gelf_http import GelfHttpInput
from collector.inputs.tails import Tails
from collector.lanes.board import Board
from collector.lanes.groups import choose
from collector.oom_kills import OomKills
from collector.roots import Roots
from collector.sampler import Sampler
from collector.store import Store
from dashboards.web.api import Api
from dashboards.web.history import HistoryApi
from dashboards.web.page import add_page
from dashboards.web.processes_api import ProcessesApi
from exporters.prometheus.exposition import Exposition
from exporters.prometheus.http import page_of, routes
from exporters.prometheus.labels import DEFAULT_LABELS, LabelRules
from exporters.prometheus.lane_metrics import lane_metrics
from exporters.prometheus.node_page import NodePage, host_metrics
from exporters.prometheus.self_metrics import SelfMetrics, cgroup_metrics, discovery_metrics, sampling_metrics
from exporters.prometheus.service_discovery import Discovery, add_service_discovery
from taffrail.config import Config
from taffrail.errors import CommandError
from taffrail.forward_security import forward_security, forward_tls
from taffrail.history_metrics import history_metrics
from taffrail.http_security import http_tls, refuse_if_open, token_check
from taffrail.input_tls import input_tls
from taffrail.lanes import make_lanes
from taffrail.log_metrics import (
    delivery_metrics,
    exporter_metrics,
    gap_metrics,
    input_metrics,
    remainder_metrics,
    store_metrics,
    tail_metrics,
)
from taffrail.tokens import read_tokens
from taffrail.wiring import Endpoints, make_paths, split_address, write_endpoints

if TYPE_CHECKING:
    from exporters.elasticsearch.config import ElasticsearchConfig
    from exporters.remote_write.exporter import RemoteWriteExporter

__all__ = ["Agent"]

log = logging.getLogger(__name__)

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
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        self._paths.run.mkdir(parents=True, exist_ok=True)
        self._paths.collector_state.mkdir(parents=True, exist_ok=True)
        async with contextlib.AsyncExitStack() as stack:
            tasks = await self._build(stack)
            running = [asyncio.create_task(_named(name, work)) for name, work in tasks]
            stack.push_async_callback(_cancel, running)
            url = f"http{'s' if self._config.http.tls_cert else ''}://{self._endpoints.http}/"
            log.info("the agent is ready on %s and %s", self._paths.agent_socket, url)
            waiting = asyncio.create_task(stop.wait())
            done, _ = await asyncio.wait([waiting, *running], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {waiting}:
                task.result()  # a part that ends is a fault: let it end the agent, the supervisor starts it again
            log.info("stopping")

    async def _build(self, stack: contextlib.AsyncExitStack) -> list[tuple[str, Coroutine[None, None, None]]]:
        """Every part, started or with its coroutine in the answer; the stack stops them in the opposite order."""
        config, paths = self._config, self._paths
        roots = Roots(paths.proc, paths.sys)
        containers = Containers()
        store = Store(
            paths.collector_state / "store",
            max_bytes=config.store.max_size,
            max_age_seconds=config.store.max_age or None,
        )
        stack.callback(store.close)
        oom_kills = OomKills(paths.collector_state / "oom_kills.json")
        every = config.prometheus.all_cgroups
        sampler = Sampler(
            containers,
            roots,
            interval=config.collector.interval,
            oom_kills=oom_kills,
            bare_every=1 if every else 10,
            per_cpu="percpu" in choose(config.collector.groups),
        )
        stack.callback(sampler.close)
        sources = Sources(containers, config.collector.host)
        further = config.prometheus.container_labels
        rules = LabelRules(
            tuple(dict.fromkeys((*DEFAULT_LABELS, *further))),
            "all" in further,
            config.prometheus.label_aliases,
        )
        board = Board()
        lanes = make_lanes(config.collector, roots, sampler, board)
        exposition = Exposition(
            containers,
            sampler,
            rules,
            max_series=config.prometheus.max_series,
            version=version("taffrail"),
            board=board,
        )
        exposition.all_cgroups = every
        own = SelfMetrics()
        groups = HostGroups(roots, config.collector.host_groups)
        node = NodePage(groups, version("taffrail"))
        own.register(host_metrics(groups, node))

        gelf = await self._gelf(stack, store, sources)
        forward = await self._forward(stack, store, sources)
        posted = await self._gelf_http(stack, store, sources)
        inputs = {"gelf": gelf, "gelf-http": posted, "forward": forward}
        own.register(
            input_metrics({name: part.counters for name, part in inputs.items() if part is not None})
        )
        at = self._endpoints
        addresses = [part for part in (at.gelf, at.gelf_http, at.forward) if part]
        tails = Tails(containers, store, sources, addresses)
        discoveries = [EngineDiscovery(socket, containers, paths.proc) for socket in self._engines()]
        work: list[tuple[str, Coroutine[None, None, None]]] = [
            ("sampling", sampler.run()),
            ("tails", tails.run()),
            *((f"lane {lane.name}", lane.run()) for lane in lanes),
            *((f"discovery on {discovery.socket}", discovery.run()) for discovery in discoveries),
        ]
        if config.collector.cgroups:
            cgroups = CgroupDiscovery(
                containers,
                roots,
                lambda engine: any(each.follows(engine) for each in discoveries),
            )
            work.append(("discovery by cgroups", cgroups.run()))
            own.register(cgroup_metrics(cgroups))
        if config.elasticsearch.hosts:
            from exporters.elasticsearch.exporter import ElasticsearchExporter  # memory most hosts can spare

            exporter = ElasticsearchExporter(
                self._elasticsearch(), store.cursor("elasticsearch"), store.identity
            )
            work.append(("elasticsearch", exporter.run()))
            own.register(exporter_metrics(exporter))
        else:
            store.drop_cursor("elasticsearch")  # retention is not to wait for an exporter that is gone
        if config.remote_write.url:
            page = page_of(exposition, sampler, own, node=node)
            work.append(("remote write", self._remote_write(page, own).run()))
        own.register(sampling_metrics(sampler, exposition))
        own.register(lane_metrics(lanes))
        own.register(discovery_metrics(discoveries))
        own.register(store_metrics(store))
        own.register(tail_metrics(tails))
        own.register(delivery_metrics(containers, paths.state / "plugin"))
        own.register(gap_metrics(containers))
        own.register(remainder_metrics(paths.engine_state / "undelivered", paths.state / "plugin"))

        app = web.Application(middlewares=self._middlewares())
        routes(app, exposition, sampler, own, node=node)
        Api(containers, sampler, store, config.collector.host).add_routes(app)
        reader, recording = self._history(stack, containers, sampler, own)
        work += recording
        HistoryApi(reader, config.collector.host).add_routes(app)
        processes = ProcessesApi(
            containers,
            roots,
            config.collector.host,
            keep_map=config.collector.connections,
            files_over_tcp=bool(config.http.token_file),
        )
        processes.add_routes(app)
        if processes.graph is not None:
            work.append(("connections", processes.graph.run()))
        add_service_discovery(app, Discovery(containers, paths.proc, config.collector.host))
        add_page(app)
        await self._serve(stack, app)
        return work

    def _history(
        self, stack: contextlib.AsyncExitStack, containers: Containers, sampler: Sampler, own: SelfMetrics
    ) -> tuple[HistoryReader, list[tuple[str, Coroutine[None, None, None]]]]:
        """Who answers questions about the past, and the recorder's work where it is kept on disk."""
        host, limit = self._config.collector.host, self._config.collector.history_max_size
        if not limit:
            return HistoryReader(containers, sampler, None, host), []
        archive = Archive(self._paths.collector_state / "history", limit)
        stack.callback(archive.close)
        recorder = Recorder(sampler, archive, host)
        stack.callback(recorder.record, unfinished=True)
        own.register(history_metrics(archive, recorder))
        return HistoryReader(containers, sampler, archive, host), [("history", recorder.run())]

    def _engines(self) -> tuple[Path, ...]:
        if self._config.collector.engines:
            return tuple(map(Path, self._config.collector.engines))
        return (self._paths.engine_socket, *OTHER_ENGINES)

    async def _gelf(
        self, stack: contextlib.AsyncExitStack, store: Store, sources: Sources
    ) -> GelfInput | None:
        if not self._config.inputs.gelf:
            return None
        receiver = GelfInput(*split_address(self._config.inputs.gelf), store, sources, tls=self._gelf_tls())
        await receiver.start()
        stack.push_async_callback(receiver.stop)
        self._listening(gelf=receiver.address)
        return receiver

    async def _gelf_http(
        self, stack: contextlib.AsyncExitStack, store: Store, sources: Sources
    ) -> GelfHttpInput | None:
        if not self._config.inputs.gelf_http:
            return None
        receiver = GelfHttpInput(
            *split_address(self._config.inputs.gelf_http), store, sources, tls=self._gelf_tls()
        )
        await receiver.start()
        stack.push_async_callback(receiver.stop)
        self._listening(gelf_http=receiver.address)
        return receiver

    def _gelf_tls(self) -> ssl.SSLContext | None:
        return input_tls("gelf_tls", self._config.inputs.gelf_tls_cert, self._config.inputs.gelf_tls_key)

    async def _forward(
        self, stack: contextlib.AsyncExitStack, store: Store, sources: Sources
    ) -> ForwardInput | None:
        if not self._config.inputs.forward:
            return None
        receiver = ForwardInput(
            *split_address(self._config.inputs.forward),
            store,
            sources,
            security=forward_security(self._config),
            tls=forward_tls(self._config),
        )
        await receiver.start()
        stack.push_async_callback(receiver.stop)
        self._listening(forward=receiver.address)
        return receiver

    def _middlewares(self) -> list[Middleware]:
        refuse_if_open(self._config.http)
        path = self._config.http.token_file
        return [token_check(read_tokens(path, "[http] token_file"))] if path else []

    async def _serve(self, stack: contextlib.AsyncExitStack, app: web.Application) -> None:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        host, port = split_address(self._config.http.address)
        site = web.TCPSite(runner, host, port, ssl_context=http_tls(self._config.http))
        await site.start()
        self._listening(http=runner.addresses[-1][:2])
        # Whoever finds the socket answering may read where everything listens.
        write_endpoints(self._paths, self._endpoints)
        self._paths.agent_socket.unlink(missing_ok=True)
        await web.UnixSite(runner, str(self._paths.agent_socket)).start()
        self._paths.agent_socket.chmod(0o660)

    def _listening(self, **bound: tuple[str, int]) -> None:
        texts = {
            name: f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            for name, (host, port) in bound.items()
        }
        self._endpoints = Endpoints(
            http=texts.get("http", self._endpoints.http),
            gelf=texts.get("gelf", self._endpoints.gelf),
            gelf_http=texts.get("gelf_http", self._endpoints.gelf_http),
            forward=texts.get("forward", self._endpoints.forward),
        )

    def _elasticsearch(self) -> ElasticsearchConfig:
        from exporters.elasticsearch.config import ElasticsearchConfig

        given = self._config.elasticsearch
        return ElasticsearchConfig(
            hosts=given.hosts,
            data_stream=given.data_stream,
            username=given.username,
            password=given.password,
            api_key=given.api_key,
            ca_certs=given.ca_certs,
            verify_certs=given.verify_certs,
            batch_bytes=given.batch_size,
            state_directory=self._paths.collector_state / "elasticsearch",
        )

    def _remote_write(self, page: Callable[[], bytes], own: SelfMetrics) -> RemoteWriteExporter:
        from exporters.remote_write.config import RemoteWriteConfig
        from exporters.remote_write.exporter import RemoteWriteExporter
        from exporters.remote_write.metrics import remote_write_metrics

        given = self._config.remote_write
        labels = {"job": "taffrail", "instance": self._config.collector.host}
        try:
            checked = RemoteWriteConfig(
                url=given.url,
                directory=self._paths.collector_state / "remote_write",
                interval_seconds=given.interval,
                username=given.username,
                password_file=given.password_file,
                bearer_token_file=given.bearer_token_file,
                ca_certs=given.ca_certs,
                client_cert=given.client_cert,
                client_key=given.client_key,
                verify_certs=given.verify_certs,
                external_labels={**labels, **given.external_labels},
                headers=given.headers,
                queue_bytes=given.queue_size,
                timeout_seconds=given.request_timeout,
            )
            exporter = RemoteWriteExporter(checked, page)
        except ValueError as error:
            raise CommandError(f"[remote_write] {error}") from error
        own.register(remote_write_metrics(exporter))
        return exporter


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
