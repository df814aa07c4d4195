"""The own metrics of the histories of processes and connections, over real ones."""

from __future__ import annotations

from pathlib import Path

from collector.discovery.registry import Containers
from collector.processes.graph import ConnectionGraph
from collector.processes.map_history import MapHistory, MapRecorder
from collector.processes.recorder import ProcessArchive, ProcessRecorder
from collector.processes.tree import Processes
from collector.roots import Roots
from exporters.prometheus.own_families import OwnFamily
from taffrail.past_metrics import map_metrics, process_metrics


def values(families: list[OwnFamily]) -> dict[str, float]:
    return {
        f"{family.name}{{{','.join(map(str, labels))}}}": float(value)
        for family in families
        for labels, value in family.series
    }


def test_what_was_looked_at_written_and_lost(tmp_path: Path) -> None:
    archive = ProcessArchive(tmp_path / "p", 1 << 20)
    recorder = ProcessRecorder(Containers(), Roots(), archive)
    for _ in range(2):
        recorder.record()
    archive.fine.losses.steps["No space left on device"] += 1
    told = values(list(process_metrics(archive, recorder)()))
    name = "taffrail_process_history"
    assert told[f"{name}_looks_total{{}}"] == 2
    assert told[f"{name}_steps{{10s}}"] == 2
    assert told[f"{name}_disk_bytes{{10s}}"] == archive.disk_bytes > 0
    assert told[f"{name}_lost_steps_total{{10s,No space left on device}}"] == 1
    assert told[f"{name}_removed_steps_total{{60s,size}}"] == 0
    assert told[f"{name}_processes{{}}"] > 0
    assert told[f"{name}_cpu_seconds_total{{}}"] > 0
    archive.close()


def test_the_map_of_connections(tmp_path: Path) -> None:
    containers = Containers()
    graph = ConnectionGraph(containers, Processes(containers).members, Roots().proc)
    history = MapHistory(tmp_path, 1 << 20)
    recorder = MapRecorder(graph, history)
    graph.look()
    recorder.record()
    told = values(list(map_metrics(history, recorder)()))
    assert told["taffrail_connection_history_steps{60s}"] == 1
    assert told["taffrail_connection_history_damaged_total{}"] == 0
    history.close()
