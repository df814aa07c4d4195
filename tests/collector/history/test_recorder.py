"""From samples to rows on disk and back: known answers through every resolution, restarts, churn, clocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from collector.container import Container
from collector.history.reader import HistoryError
from collector.history.ring import History
from collector.history.tier import Resolution

from .conftest import BASE, Recorded, sample

US = 1_000_000
#: Files that roll over after a minute and four, so that tests meet many.
FINE, COARSE = Resolution(10, 6 * 3600, 60), Resolution(60, 7 * 86400, 240)


def ask(recorded: Recorded, name: str, since: float, until: float, step: int = 0) -> Any:
    return recorded.reader.curves(name, round((BASE + since) * US), round((BASE + until) * US), step)


def test_a_steady_load_is_the_same_in_every_resolution(recorded: Callable[..., Recorded]) -> None:
    """Half a CPU, 1000 bytes a second, memory between 100 and 110 MiB."""
    made = recorded(FINE, COARSE)
    ring = made.sampler.add("web")
    made.run(900, lambda s: ring.append(sample(s, s / 2, (100 << 20) + (s % 10 << 20), s * 1000)))
    for since, until, step, resolution in ((840, 900, 1, 1), (300, 900, 10, 10), (0, 900, 60, 60)):
        answer = ask(made, "web", since, until, step)
        assert (answer.step, answer.resolution) == (step, resolution)
        columns = answer.curves.columns
        assert list(answer.curves.times) == list(range(BASE + since, BASE + until, step))
        assert columns["cpu_percent"][-1] == 50.0
        assert set(columns["cpu_percent"]) <= {50.0, None}
        assert set(columns["rx_bytes_per_second"]) <= {1000.0, None}
        assert set(columns["tx_bytes_per_second"]) <= {2000.0, None}
        assert set(columns["read_bytes_per_second"]) <= {3000.0, None}
        assert set(columns["write_bytes_per_second"]) <= {4000.0, None}
        assert set(columns["throttled_percent"]) <= {5.0, None}
        assert set(columns["pids"]) == {5.0}
        if step > 1:
            assert set(columns["memory_bytes"]) == {(100 << 20) + 4.5 * (1 << 20)}
            assert set(columns["memory_bytes_max"]) == {109 << 20}
            assert set(columns["working_set_bytes_max"]) == {109 << 19}


def test_a_peak_within_a_minute_is_seen_in_a_week(recorded: Callable[..., Recorded]) -> None:
    made = recorded(FINE, COARSE)
    ring = made.sampler.add("web")
    cpu = 0.0

    def second(s: int) -> None:
        nonlocal cpu
        cpu += 2.0 if 190 <= s < 200 else 0.0
        ring.append(sample(s, 1 + cpu, pids=70 if s == 195 else 1))

    made.run(600, second)
    columns = ask(made, "web", 0, 600, 300).curves.columns
    assert columns["cpu_percent"] == [pytest.approx(2000 / 299, abs=0.05), 0.0]
    assert columns["cpu_percent_max"][0] == pytest.approx(2000 / 60, abs=0.01)
    assert columns["pids_max"] == [70, 1]


def test_averages_are_over_the_time_known_and_not_over_steps(recorded: Callable[..., Recorded]) -> None:
    """A container that starts with twenty busy seconds at the end of a step of five minutes, then idles."""
    made = recorded(FINE, COARSE)
    ring = made.sampler.add("web")

    def second(s: int) -> None:
        if s >= 280:
            ring.append(sample(s, min(s, 300) - 280, (300 << 20) if s < 300 else (100 << 20)))

    made.run(600, second)
    curves = ask(made, "web", 0, 600, 300).curves
    busy, idle = curves.columns["cpu_percent"]
    assert busy > 90
    assert idle < 1
    assert curves.averages["cpu_percent"] == pytest.approx(100 * 20 / 319, abs=0.01)
    assert curves.averages["memory_bytes"] == pytest.approx(
        (20 * 300 + 300 * 100) / 320 * (1 << 20), rel=1e-3
    )
    empty = ask(made, "web", 0, 100, 100).curves
    assert set(empty.averages.values()) == {None}


def test_the_curve_ends_now(recorded: Callable[..., Recorded]) -> None:
    """Minutes go on in ten-second rows, those in seconds."""
    made = recorded(FINE, COARSE)
    ring = made.sampler.add("web")
    made.run(695, lambda s: ring.append(sample(s, s / 4)))
    made.second = 7 * 3600  # the question is old enough for minutes
    answer = ask(made, "web", 0, 695)
    assert answer.resolution == 60
    assert answer.curves.columns["cpu_percent"][11] == 25.0
    assert answer.curves.totals["cpu_seconds"] == pytest.approx(694 / 4)


@pytest.mark.parametrize("step", [1, 10])
def test_a_young_container_in_a_long_range_is_counted_once(
    recorded: Callable[..., Recorded], step: int
) -> None:
    """The minute that it began in is on disk, and begins where nothing finer reaches back to."""
    made = recorded(FINE, COARSE)
    ring = made.sampler.add("web", started=45)
    made.run(75, lambda s: ring.append(sample(s, (s - 45) / 2)), since=45)
    answer = ask(made, "web", -300, 75, step)
    assert answer.curves.totals["cpu_seconds"] == pytest.approx(29 / 2)
    assert max(value for value in answer.curves.columns["cpu_percent"] if value is not None) <= 50.001


@pytest.mark.parametrize("step", [1, 10, 60])
def test_a_restart_of_the_container_loses_no_counter(recorded: Callable[..., Recorded], step: int) -> None:
    """Three runs, each counting from zero; the last read of a run is its final numbers."""
    made = recorded(FINE, COARSE)
    ring = made.sampler.add("web")
    total = 0.0

    def second(s: int) -> None:
        if s in (125, 250):
            ring.started_anew()
        run = s - (250 if s >= 250 else 125 if s >= 125 else 0)
        ring.append(sample(s, run * 0.5 + 0.1, rx=run * 100 + 7))

    made.run(420, second)
    total += 124 * 0.5 + (124 * 0.5 + 0.1) + (169 * 0.5 + 0.1)
    made.second = 420 if step == 1 else 605
    answer = ask(made, "web", 0, 420, step)
    assert answer.step == step
    assert answer.curves.totals["cpu_seconds"] == pytest.approx(total)
    assert answer.curves.totals["rx_bytes"] == 124 * 100 + (124 * 100 + 7) + (169 * 100 + 7)
    assert all(value is None or value <= 62 for value in answer.curves.columns["cpu_percent"])


def test_a_crash_loop_within_one_step(recorded: Callable[..., Recorded]) -> None:
    made = recorded(FINE, COARSE)
    ring = made.sampler.add("web")

    def second(s: int) -> None:
        if s >= 10:
            ring.started_anew()
        ring.append(sample(s, 0.3))  # every run uses 0.3 s

    made.run(70, second)
    assert ask(made, "web", 10, 70, 10).curves.totals["cpu_seconds"] == pytest.approx(60 * 0.3)
    assert set(ask(made, "web", 10, 70, 10).curves.columns["cpu_percent"]) == {30.0}


def test_a_counter_that_was_not_read_for_once_is_no_reset(recorded: Callable[..., Recorded]) -> None:
    made = recorded(FINE, COARSE)
    ring = made.sampler.add("web")
    made.run(60, lambda s: ring.append(sample(s, 100 + s, rx=0 if s in (25, 29, 30) else 50_000 + s)))
    columns = ask(made, "web", 0, 60, 10).curves.columns
    assert [value for value in columns["rx_bytes_per_second"] if value is not None] == [
        1.0,
        1.0,
        0.9,
        1.1,
        1.0,
        1.0,
    ]
    assert set(columns["cpu_percent"]) == {100.0}


@pytest.mark.parametrize("step", [1, 10, 60])
def test_an_interface_that_goes_away_is_no_traffic(recorded: Callable[..., Recorded], step: int) -> None:
    """The sum over the host's interfaces falls by gigabytes and comes back when a link does."""
    made = recorded(FINE, COARSE)
    ring = made.sampler.add("web")
    made.run(300, lambda s: ring.append(sample(s, s, rx=(5_000_000 if s < 155 else 3_000_000) + s * 10)))
    made.second = 300 if step == 1 else 7 * 3600 if step == 60 else 3600
    answer = ask(made, "web", 0, 300, step)
    assert answer.curves.totals["rx_bytes"] == 298 * 10  # all but the second in which it happened
    assert max(value for value in answer.curves.columns["rx_bytes_per_second"] if value is not None) == 10.0


def test_a_container_of_two_hundred_milliseconds_has_its_row(recorded: Callable[..., Recorded]) -> None:
    made = recorded(FINE, COARSE)
    ring = made.sampler.add("short", started=12.0)
    ring.append(sample(12.05, 0.01))
    ring.append(sample(12.2, 0.15, 30 << 20, 5000))
    made.record(20)
    del made.sampler.containers[made.sampler.id("short")]  # the sampler has forgotten it
    made.record(30)
    made.record(70)
    for again in (False, True):
        if again:
            made.again()
        answer = ask(made, "short", 0, 60, 10)
        assert answer.curves.totals["cpu_seconds"] == pytest.approx(0.15)
        assert answer.curves.totals["rx_bytes"] == 5000
        assert answer.curves.columns["cpu_percent"] == [None, 75.0, None, None, None, None]
        assert answer.curves.columns["memory_bytes_max"][1] == 100 << 20


def test_the_agent_is_started_again(recorded: Callable[..., Recorded]) -> None:
    """Nothing is lost but seconds: the minute under way is put together again, growth meanwhile is counted."""
    made = recorded(FINE, COARSE)
    ring = made.sampler.add("web")
    made.run(95, lambda s: ring.append(sample(s, 10 + s / 2)))
    made.record(95.5, unfinished=True)
    made.again()
    ring = made.sampler.containers[made.sampler.id("web")][1]
    made.run(300, lambda s: ring.append(sample(s, 10 + s / 2)), since=115)
    for step in (10, 60):
        made.second = 910 if step == 10 else 7 * 3600
        answer = ask(made, "web", 0, 300, step)
        assert answer.curves.totals["cpu_seconds"] == pytest.approx(299 / 2)
        assert set(answer.curves.columns["cpu_percent"]) <= {50.0, None}
    assert made.archive.losses.torn_bytes == 0


def test_the_container_was_restarted_while_no_agent_ran(recorded: Callable[..., Recorded]) -> None:
    made = recorded(FINE, COARSE)
    ring = made.sampler.add("web")
    made.run(60, lambda s: ring.append(sample(s, 1 + s / 100)))
    ring = made.sampler.add("web", started=62)  # the same id, begun anew, and soon beyond what it had
    made.again(keep_rings=True)
    made.run(120, lambda s: ring.append(sample(s, (s - 60) * 0.9)), since=65)
    made.second = 910
    assert ask(made, "web", 60, 120, 10).curves.totals["cpu_seconds"] == pytest.approx(59 * 0.9)


def test_a_thousand_short_containers(recorded: Callable[..., Recorded]) -> None:
    """A hundred a second come and go; every one is found by name and by id, before and after it is sealed."""
    made = recorded(FINE, COARSE)
    for second in range(10):
        for index in range(100):
            ring = made.sampler.add(f"job-{second}-{index}", started=second)
            ring.append(sample(second + 0.1, 0.001 * index, rx=index))
            ring.append(sample(second + 0.3, 0.1 + 0.001 * index, rx=index * 2))
    made.record(10)
    ids = {container.name: one for one, (container, _) in made.sampler.containers.items()}
    made.sampler.containers.clear()
    made.record(11)
    assert made.recorder._followed == {}
    assert set(made.recorder._positions) <= {"/"}
    keep = made.sampler.add("keep")
    made.run(400, lambda s: keep.append(sample(s, s)), since=11)
    assert made.archive.fine.sealed
    assert made.archive.coarse.sealed
    assert len(made.archive._definitions) == 1
    made.again()
    for name in ("job-0-0", "job-5-50", "job-9-99"):
        index = int(name.rpartition("-")[2])
        for key in (name, ids[name], ids[name][:12], "/" + name):
            answer = ask(made, key, 0, 60, 10)
            assert answer.container.id == ids[name]
            assert answer.curves.totals["cpu_seconds"] == pytest.approx(0.1 + 0.001 * index)
            assert answer.curves.totals["rx_bytes"] == 2 * index
    assert len(made.reader.held(BASE * US, (BASE + 60) * US)) == 1001
    with pytest.raises(ValueError, match="container='job-10-0': expected the name or id"):
        ask(made, "job-10-0", 0, 60)


@pytest.mark.parametrize("resolutions", [(FINE, COARSE), ()], ids=["sealed", "growing"])
def test_the_list_says_when_each_container_was_there(
    recorded: Callable[..., Recorded], resolutions: tuple[Resolution, ...]
) -> None:
    """Not when the files begin and end that hold its rows, with its samples in memory and without."""
    made = recorded(*resolutions)
    early, late = made.sampler.add("early", started=0), made.sampler.add("late", started=330)

    def second(s: int) -> None:
        if s < 100:
            early.append(sample(s, s / 2))
        if s >= 330:
            late.append(sample(s, (s - 330) / 2))

    made.run(600, second)
    assert bool(made.archive.fine.sealed) == bool(resolutions)
    for _ in range(2):
        held = {one.name: one for one in made.reader.held(BASE * US, (BASE + 600) * US)}
        assert 0 <= held["early"].first_us - BASE * US <= 10 * US
        assert held["early"].last_us == (BASE + 99) * US
        assert 330 * US <= held["late"].first_us - BASE * US <= 340 * US
        assert held["late"].last_us == (BASE + 599) * US
        made.again()


def test_of_several_with_one_name_the_newest_is_meant(recorded: Callable[..., Recorded]) -> None:
    made = recorded(FINE, COARSE)
    for life in range(3):
        made.sampler.containers.clear()
        ring = made.sampler.add(f"life {life}")
        identity = made.sampler.id(f"life {life}")
        container, _ = made.sampler.containers[identity]
        made.sampler.containers[identity] = type(container)(id=identity, name="web"), ring
        for second in range(3):
            ring.append(sample(life * 100 + second, second))
        made.record(life * 100 + 10)
    assert ask(made, "web", 0, 300).container.id == identity


def test_a_removed_ones_name_goes_before_the_beginning_of_a_running_ones_id(
    recorded: Callable[..., Recorded],
) -> None:
    made = recorded(FINE, COARSE)
    ring = made.sampler.add("c1c1")
    removed = made.sampler.id("c1c1")
    made.run(30, lambda s: ring.append(sample(s, s)))
    running = "c1c1" + "0" * 60
    made.containers.update(Container(id=running, name="web", image="i", engine="docker", state="running"))
    assert made.reader.find("c1c1").id == removed
    assert made.reader.find("/c1c1").id == removed
    assert made.reader.find(removed).id == removed
    assert made.reader.find("c1").id == made.reader.find("web").id == running
    with pytest.raises(HistoryError, match="container=''"):
        made.reader.find("")


def test_a_new_name_is_found_and_the_old_one_where_it_was(recorded: Callable[..., Recorded]) -> None:
    made = recorded(FINE, COARSE)
    ring = made.sampler.add("old")
    identity = made.sampler.id("old")
    made.run(130, lambda s: ring.append(sample(s, s)))
    made.sampler.containers[identity] = (
        type(made.sampler.containers[identity][0])(id=identity, name="new"),
        ring,
    )
    made.run(300, lambda s: ring.append(sample(s, s)), since=130)
    made.again()
    assert ask(made, "new", 0, 60).container.id == ask(made, "old", 0, 60).container.id == identity
    assert ask(made, identity, 0, 60).container.name == "new"


@pytest.mark.parametrize("leap", [3600, 86400 * 30, -45, -7200])
def test_the_clock_is_stepped(recorded: Callable[..., Recorded], leap: int) -> None:
    """Rows stay in the order written, no growth comes twice, nothing is removed for an age it does not have."""
    made = recorded(FINE, COARSE)
    ring = made.sampler.add("web")
    made.run(300, lambda s: ring.append(sample(s, 5 + s / 2)))
    made.run(600, lambda s: ring.append(sample(s + leap, 5 + s / 2)), since=300)
    made.record(600 + leap, unfinished=True)
    rows = made.archive.fine.rows
    assert rows >= 60
    assert made.archive.losses.removed_rows.total() == 0
    for _ in range(2):
        made.second = 7 * 3600 + abs(leap)
        early = ask(made, "web", -7200, 300, 60).curves.columns["cpu_percent"]
        late = ask(made, "web", 300 + leap, 600 + leap, 60).curves.columns["cpu_percent"]
        # A leap ahead is a pause; set back, the growth across it is not known.
        assert [value for value in early if value is not None and not 0 <= value <= 50.001] == []
        assert [value for value in late if value is not None and not 0 <= value <= 50.001] == []
        assert 50.0 in early
        assert 50.0 in late
        made.again()


def test_back_in_time(recorded: Callable[..., Recorded]) -> None:
    made = recorded(FINE, COARSE)
    web, short = made.sampler.add("web"), made.sampler.add("short", started=100)
    made.sampler.limit = 1 << 30

    def second(s: int) -> None:
        web.append(
            sample(s, s * (0.5 if s < 200 else 0.25) + (0 if s < 200 else 50), (s // 60 + 1) << 20, s * 10)
        )
        if 100 < s < 130:
            short.append(sample(s, (s - 100) * 1.5))

    made.run(420, second)
    for clock, resolution in ((420, 1), (3600, 10), (7 * 3600, 60)):
        made.second = clock
        found, rows = made.reader.at((BASE + 115) * US)
        assert found == resolution
        assert [row.name for row in rows] == ["short", "web"]
        # Its minute has 29 s of life and as much CPU.
        assert rows[0].cpu_percent == pytest.approx(150.0)
        assert rows[1].cpu_percent == pytest.approx(50.0)
        assert rows[1].memory_usage_bytes == 1 << 20
        assert rows[1].memory_limit_bytes == (1 << 30)
        assert rows[1].net_rx_bytes_per_second == pytest.approx(10.0)
        assert 1150 <= rows[1].net_rx_bytes <= 1190
        _, rows = made.reader.at((BASE + 350) * US)
        assert [(row.name, row.cpu_percent) for row in rows] == [("web", 25.0)]
        assert made.reader.at((BASE - 5000) * US)[1] == []


def test_without_a_disk_there_are_the_seconds(recorded: Callable[..., Recorded]) -> None:
    made = recorded()
    ring = made.sampler.add("web")
    made.run(30, lambda s: ring.append(sample(s, s)))
    made.reader._archive = None
    identity = made.sampler.id("web")
    made.reader._containers.update(made.sampler.containers[identity][0])
    assert set(ask(made, "web", 1, 30).curves.columns["cpu_percent"]) == {100.0}
    assert [row.name for row in made.reader.at((BASE + 20) * US)[1]] == ["web"]


def test_wrong_questions(recorded: Callable[..., Recorded]) -> None:
    made = recorded()
    made.sampler.add("web").append(sample(1, 1))
    made.record(10)
    with pytest.raises(ValueError, match=r"to=\d+: expected a time after from=\d+"):
        ask(made, "web", 10, 10)
    made.second = 7 * 86400
    with pytest.raises(ValueError, match="step=60: expected at least 110 seconds"):
        ask(made, "web", -7 * 86400, 7 * 86400, 60)
    for key in ("", "nobody"):
        with pytest.raises(ValueError, match=f"container='{key}': expected"):
            ask(made, key, 0, 10)


def test_a_ring_read_while_it_grows_is_whole() -> None:
    ring = History(600)
    for second in range(20):
        ring.append(sample(second, second))
    position, points = ring.numbered_after(5)
    assert position == 5
    assert len(points) == 15
