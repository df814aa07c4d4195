"""The history's own metrics say what is held, taken and lost."""

from __future__ import annotations

from pathlib import Path

from collector.clock_trust import ClockTrust
from collector.discovery.registry import Containers
from collector.history.archive import Archive
from collector.history.recorder import Recorder
from collector.roots import Roots
from collector.sampler import Sampler
from exporters.prometheus.self_metrics import SelfMetrics
from taffrail.history_metrics import clock_metrics, history_metrics


def test_what_is_held_taken_and_lost(tmp_path: Path) -> None:
    sampler = Sampler(Containers(), Roots())
    archive = Archive(tmp_path / "history")
    recorder = Recorder(sampler, archive, "testhost")
    for second in range(1000, 1080):
        sampler.sample_all(second * 10**9)
    recorder.record(1080 * 10**9)
    archive.losses.steps["No space left on device"] += 2
    archive.losses.removed_rows["size"] += 7
    archive.losses.torn_bytes = 11
    page = SelfMetrics()
    page.register(history_metrics(archive, recorder))
    lines = page.text().decode().splitlines()
    archive.close()
    sampler.close()
    size = sum(path.stat().st_size for path in (tmp_path / "history").glob("10s-*"))
    for line in (
        f'taffrail_history_disk_bytes{{step="10s"}} {float(size)}',
        'taffrail_history_rows{step="10s"} 9.0',  # the host's begin and eight steps
        'taffrail_history_rows{step="60s"} 2.0',
        'taffrail_history_oldest_timestamp_seconds{step="10s"} 1009.0',
        "taffrail_history_written_rows_total 11.0",
        'taffrail_history_removed_rows_total{cause="size"} 7.0',
        'taffrail_history_removed_rows_total{cause="age"} 0.0',
        'taffrail_history_lost_steps_total{cause="No space left on device"} 2.0',
        "taffrail_history_torn_bytes_total 11.0",
        "taffrail_history_damaged_total 0.0",
        "taffrail_history_failures_total 0.0",
    ):
        assert line in lines, line


def test_whether_the_clock_is_believed(tmp_path: Path) -> None:
    day = 86400 * 10**9
    ClockTrust(tmp_path / "clock.json", "one boot").trusts(30 * day)
    clock = ClockTrust(tmp_path / "clock.json", "another", synchronized=lambda: False)
    page = SelfMetrics()
    page.register(clock_metrics(clock))
    assert "taffrail_clock_trusted 1.0" in page.text().decode().splitlines()
    clock.trusts(44 * day)
    lines = page.text().decode().splitlines()
    assert "taffrail_clock_trusted 0.0" in lines
    assert "taffrail_clock_failures_total 0.0" in lines
