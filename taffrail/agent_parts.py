"""The agent's middle: registry, store, sampler, lanes and pages, built from the configuration and wired.

What receives and what sends is beside it (``agent_inputs.py``, ``agent_exporters.py``); ``agent.py`` runs them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from collector.clock_trust import ClockTrust
from collector.discovery.registry import Containers
from collector.enrich import Sources
from collector.host.collection import HostGroups
from collector.lanes.board import Board
from collector.lanes.groups import choose
from collector.lanes.lane import Lane
from collector.oom_kills import OomKills
from collector.roots import Roots
from collector.sampler import Sampler
from collector.segments.opening import boot_id
from collector.store import Store
from exporters.prometheus.exposition import Exposition
from exporters.prometheus.labels import DEFAULT_LABELS, LabelRules
from exporters.prometheus.node_page import NodePage, host_metrics
from exporters.prometheus.self_metrics import SelfMetrics
from taffrail import __version__
from taffrail.config import Config
from taffrail.lanes import make_lanes
from taffrail.paths import Paths

__all__ = ["Core", "make_core"]


@dataclass(frozen=True, slots=True)
class Core:
    """What all other parts read from or write to."""

    roots: Roots
    clock: ClockTrust
    containers: Containers
    store: Store
    sampler: Sampler
    sources: Sources
    lanes: Sequence[Lane]
    exposition: Exposition
    node: NodePage
    own: SelfMetrics


def make_core(config: Config, paths: Paths, stack: contextlib.AsyncExitStack) -> Core:
    """Build it; the stack closes it. Raises OSError naming what cannot be opened, ValueError for lanes."""
    roots = Roots(paths.proc, paths.sys)
    containers = Containers()
    clock = ClockTrust(paths.collector_state / "clock.json", boot_id(paths.proc))
    store = Store(
        paths.collector_state / "store",
        max_bytes=config.store.max_size,
        max_age_seconds=config.store.max_age or None,
        clock=clock,
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
        version=__version__,
        board=board,
    )
    exposition.all_cgroups = every
    exposition.topology = "cpu_topology" in choose(config.collector.groups)
    own = SelfMetrics()
    groups = HostGroups(roots, config.collector.host_groups)
    node = NodePage(groups, __version__)
    own.register(host_metrics(groups, node))
    return Core(roots, clock, containers, store, sampler, sources, lanes, exposition, node, own)
