"""The agent's parts for what runs inside containers: processes and connections, as they are and as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine

from aiohttp import web

from collector.history.reader import HistoryReader
from collector.processes.map_history import MapHistory, MapRecorder
from collector.processes.past import Past
from collector.processes.recorder import ProcessArchive, ProcessRecorder
from dashboards.web.past_api import PastApi
from dashboards.web.processes_api import ProcessesApi
from taffrail.agent_parts import Core
from taffrail.config import Config
from taffrail.past_metrics import map_metrics, process_metrics
from taffrail.paths import Paths

__all__ = ["add_processes"]

Work = tuple[str, Callable[[], Coroutine[None, None, None]]]


def add_processes(
    config: Config,
    paths: Paths,
    core: Core,
    reader: HistoryReader,
    app: web.Application,
    stack: contextlib.AsyncExitStack,
) -> list[Work]:
    """Put the pages on ``app``; the work that stands behind them. Raises OSError for files that cannot be opened."""
    collector = config.collector
    work: list[Work] = []
    api = ProcessesApi(
        core.containers,
        core.roots,
        collector.host,
        keep_map=collector.connections,
        files_over_tcp=bool(config.http.token_file),
    )
    api.add_routes(app)
    past: Past | None = None
    if collector.process_history_max_size:
        archive = ProcessArchive(
            paths.collector_state / "processes",
            collector.process_history_max_size,
            collector.process_history_interval,
            core.clock,
        )
        stack.callback(archive.close)
        recorder = ProcessRecorder(core.containers, core.roots, archive)
        stack.callback(recorder.record)
        core.own.register(process_metrics(archive, recorder))
        work.append(("history of processes", recorder.run))
        past = Past(archive)
    connections: MapHistory | None = None
    if api.graph is not None:
        work.append(("connections", api.graph.run))
        if collector.connection_history_max_size:
            connections = MapHistory(
                paths.collector_state / "connections", collector.connection_history_max_size, core.clock
            )
            stack.callback(connections.close)
            keeper = MapRecorder(api.graph, connections)
            stack.callback(keeper.record)
            core.own.register(map_metrics(connections, keeper))
            work.append(("history of connections", keeper.run))
    PastApi(past, connections, reader, collector.host).add_routes(app)
    return work
