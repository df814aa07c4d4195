"""The page of a cgroup v2 host: what a real kernel of that kind counts, under cAdvisor's names."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest

from collector.discovery.registry import Containers
from collector.sampler import Sampler
from exporters.prometheus.exposition import Exposition


@pytest.fixture(scope="module")
def page(v2_guest: Any) -> str:
    containers = Containers()
    for container in v2_guest.containers():
        containers.update(container)
    sampler = Sampler(containers, v2_guest.roots(1))
    try:
        sampler.sample_all()
        return Exposition(containers, sampler).render().decode()
    finally:
        sampler.close()


def value(page: str, name: str, container: str, labels: str = "") -> float:
    """The one value of the series of this name, container and further labels."""
    lines = [
        line
        for line in page.splitlines()
        if line.startswith(name + "{") and f'name="{container}"' in line and labels in line
    ]
    (line,) = lines
    return float(line.rsplit(" ", 1)[1])


def test_cpu_usage_is_the_total_alone(page: str) -> None:
    series = re.findall(r"^container_cpu_usage_seconds_total\{.*\}", page, re.MULTILINE)
    assert len(series) == 5  # four containers and the host
    assert all('cpu="total"' in labels for labels in series)
    assert value(page, "container_cpu_usage_seconds_total", "burner") > 1
    assert value(page, "container_spec_cpu_quota", "burner") == 50_000
    periods = value(page, "container_cpu_cfs_periods_total", "burner")
    assert 0 < value(page, "container_cpu_cfs_throttled_periods_total", "burner") <= periods
    assert 'container_cpu_cfs_periods_total{id="/",' not in page


def test_memory_kills_tasks_and_writes(page: str, v2_guest: Any) -> None:
    assert value(page, "container_memory_rss", "holder") >= v2_guest.held_bytes
    assert value(page, "container_spec_memory_limit_bytes", "holder") == v2_guest.holder_limit
    assert value(page, "container_threads", "holder") == v2_guest.holder_pids
    assert value(page, "container_oom_events_total", "victim") == 1
    assert value(page, "container_oom_events_total", "holder") == 0
    # On v2 cAdvisor leaves this at 0.
    assert value(page, "container_memory_failcnt", "victim") > 0
    assert value(page, "container_memory_events_max_total", "victim") > 0
    written = value(page, "container_fs_writes_bytes_total", "writer", 'device="/dev/nvme0n1"')
    assert written == 2 * v2_guest.written_bytes


def test_pressure_of_every_container_and_the_host(page: str) -> None:
    for resource in ("cpu", "memory", "io"):
        for kind in ("waiting", "stalled"):
            name = f"container_pressure_{resource}_{kind}_seconds_total"
            assert len(re.findall(rf"^{name}\{{", page, re.MULTILINE)) >= 4, name
    assert value(page, "container_pressure_cpu_waiting_seconds_total", "burner") > 1


def test_promtool_finds_nothing_wrong(page: str) -> None:
    # cAdvisor's names are not all as its linter wants them; what counts is that it can be parsed.
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False, timeout=60
    )
    assert "error while linting" not in checked.stderr
    assert checked.returncode in (0, 3), checked.stderr
