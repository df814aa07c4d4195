from pathlib import Path

from prometheus_client.core import Metric

from collector.container import Container, LogSource
from collector.discovery.registry import Containers
from logdrivers.delivery import STATE_NAME, Delivery
from logdrivers.driver import Info
from logdrivers.registry import get
from taffrail.log_metrics import delivery_metrics, remainder_metrics

ID = "ab" * 32


def values(metrics: list[Metric]) -> dict[str, float]:
    return {sample.name: sample.value for metric in metrics for sample in metric.samples}


def hold(directory: Path) -> None:
    """A journal with three lines that no sink has taken."""
    from logdrivers.block import Block, Encoding, Stream
    from logdrivers.journal import Mark

    info = Info(ID, "/web", "", "img", (), 0, directory, options={"gelf-address": "tcp://127.0.0.1:1"})
    driver = get("gelf")
    journal = driver.journal(info)
    journal.append(Block(b"1\n2\n3\n", Encoding.LINES, Stream.STDOUT, 1, 1, 3), Mark(6, 0))
    journal.close()
    reader, sink = driver.reader(info), driver.sink(info)
    assert reader is not None
    assert sink is not None
    Delivery(reader, sink, directory / STATE_NAME, "t").stop()


def test_a_driver_in_our_engine_and_one_as_a_plugin_are_both_told(tmp_path: Path) -> None:
    for where, engine, log in (
        (tmp_path / "c", "taffrail", LogSource("gelf", directory=str(tmp_path / "c"))),
        (tmp_path / "plugin" / "taffrail" / "containers" / ID / "log", "docker", LogSource("taffrail")),
    ):
        where.mkdir(parents=True)
        hold(where)
        containers = Containers()
        containers.update(Container(ID, "web", engine=engine, log=log))
        told = values(list(delivery_metrics(containers, tmp_path / "plugin")()))
        assert told["taffrail_log_written_lines_total"] == 3
        assert told["taffrail_log_held_lines"] == 3
        assert told["taffrail_log_delivered_lines_total"] == 0


def test_another_engines_own_driver_has_no_series(tmp_path: Path) -> None:
    containers = Containers()
    containers.update(Container(ID, "web", engine="docker", log=LogSource("journald")))
    assert not values(list(delivery_metrics(containers, tmp_path / "plugin")()))


def test_lines_of_removed_containers_are_told(tmp_path: Path) -> None:
    (tmp_path / ID).mkdir()
    hold(tmp_path / ID)
    told = values(list(remainder_metrics(tmp_path, tmp_path / "plugin")()))
    assert told == {"taffrail_log_removed_held_lines": 3, "taffrail_log_removed_dropped_lines_total": 0}
