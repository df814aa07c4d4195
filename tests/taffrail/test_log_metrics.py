from pathlib import Path

from collector.container import Container, LogSource
from collector.discovery.registry import Containers
from collector.inputs.losses import TailCounters
from collector.inputs.tails import TailStatus
from exporters.prometheus.own_families import OwnFamily
from logdrivers.block import Stream
from logdrivers.delivery import STATE_NAME, Delivery
from logdrivers.driver import Info
from logdrivers.registry import get
from logdrivers.source.rate_limit import SOURCE_STATE_NAME, DropCounter
from runtime.remainders import Remainders
from runtime.shim.gap import mark_gap_in_journal
from taffrail.log_metrics import delivery_metrics, gap_metrics, remainder_metrics, tail_metrics

ID = "ab" * 32


def values(families: list[OwnFamily]) -> dict[str, float]:
    return {family.name: value for family in families for _, value in family.series}


def hold(directory: Path) -> None:
    """A journal with three lines that no sink has taken."""
    from logdrivers.block import Block, Encoding
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


def test_lines_dropped_at_the_source_are_written_and_dropped(tmp_path: Path) -> None:
    logs = tmp_path / "c"
    logs.mkdir()
    hold(logs)
    counter = DropCounter(logs / SOURCE_STATE_NAME)
    counter.count(Stream.STDOUT, 5, 6, 60)
    counter.count(Stream.STDOUT, 5, 6, 60)  # a successor that does not know whether it was counted
    counter.count(Stream.STDERR, 2, 0, 9)
    counter.close()
    containers = Containers()
    containers.update(
        Container(ID, "web", engine="taffrail", log=LogSource("gelf", directory=str(logs))),
    )
    told = values(list(delivery_metrics(containers, tmp_path / "plugin")()))
    assert told["taffrail_log_written_lines_total"] == 10
    assert told["taffrail_log_held_lines"] == 3
    assert told["taffrail_log_dropped_lines_total"] == 7


def test_lines_dropped_of_removed_containers_are_still_told(tmp_path: Path) -> None:
    counter = DropCounter(tmp_path / SOURCE_STATE_NAME)
    counter.count(Stream.STDOUT, 5, 0, 60)
    counter.close()
    undelivered = tmp_path / "undelivered"
    for _ in range(2):  # the second time after a kill in the middle of the removal
        remainders = Remainders(undelivered)
        remainders.rate_limited.take(ID, tmp_path)
        remainders.start()
        remainders.close()
    remainders = Remainders(undelivered)
    remainders.start()
    remainders.rate_limited.take("cd" * 32, tmp_path)
    remainders.close()
    lost = [
        value
        for family in remainder_metrics(undelivered, tmp_path / "plugin")()
        for labels, value in family.series
        if labels == ("rate_limit",)
    ]
    assert lost == [10]


def test_gaps_are_told_per_container_of_our_engine(tmp_path: Path) -> None:
    containers = Containers()
    for name, directory in (("whole", tmp_path / "whole"), ("gap", tmp_path / "gap")):
        log = LogSource("json-file", directory=str(directory))
        containers.update(Container(name * 8, name, engine="taffrail", log=log))
    containers.update(Container(ID, "other", engine="docker", log=LogSource("journald")))
    info = Info("gap" * 8, "/gap", "", "img", (), 0, tmp_path / "gap")
    mark_gap_in_journal("json-file", info, False, 1)
    mark_gap_in_journal("json-file", info, False, 2)
    (gaps,) = gap_metrics(containers)()
    assert {labels[1]: value for labels, value in gaps.series} == {"whole": 0, "gap": 2}


class FakeTails:
    """What two tails have counted."""

    def totals(self) -> TailCounters:
        counters = TailCounters(lines=5, bytes=500)
        counters.lose("truncated", 0, 70)
        counters.lose("invalid", 2, 30)
        counters.lose("rotated", 0, 0)
        return counters

    def status(self) -> dict[str, TailStatus]:
        return {}


def test_what_tails_lost_is_told_by_cause_whether_its_amount_is_known_or_not() -> None:
    told = {
        (family.name, labels): value
        for family in tail_metrics(FakeTails())()  # type: ignore[arg-type]
        for labels, value in family.series
    }
    causes = {labels: value for (name, labels), value in told.items() if name == "taffrail_tail_losses_total"}
    assert sorted(causes.values()) == [1, 1, 1]
    assert sum(value for (name, _), value in told.items() if name == "taffrail_tail_lost_lines_total") == 2
    assert sum(value for (name, _), value in told.items() if name == "taffrail_tail_lost_bytes_total") == 100
