"""A limit of open files that is too low for all containers loses none of them."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path
from typing import Any

import pytest

from collector.container import Container
from collector.discovery.registry import Containers
from collector.sampler import HOST, Sampler
from exporters.prometheus.exposition import Exposition
from exporters.prometheus.self_metrics import SelfMetrics, sampling_metrics

LIMIT, COUNT = 300, 25


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_containers_over_the_limit_are_sampled_and_scraped(
    make_cgroup: Any, caplog: pytest.LogCaptureFixture
) -> None:
    made = [make_cgroup() for _ in range(COUNT)]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    containers = Containers()
    with contextlib.ExitStack() as stack:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        sampler = Sampler(containers)
        stack.callback(sampler.close)
        for number, cgroup in enumerate(made):
            containers.update(Container(f"{number:064x}", f"c{number}", engine="docker", cgroup=cgroup.path))
        exposition, own = Exposition(containers, sampler), SelfMetrics()
        own.register(sampling_metrics(sampler, exposition))
        for _ in range(3):
            sampler.sample_all()
            page = exposition.render().decode()
            assert page.count("\ncontainer_memory_usage_bytes{") == COUNT + 1  # and the host
        assert sampler.failures == {}
        targets = sampler.targets().values()
        reopened = sum(not target.cgroup.keeps for target in targets)
        assert 0 < reopened < COUNT
        assert f"taffrail_sampling_reopened_containers {reopened}.0".encode() in own.text()
        assert open_files() < LIMIT
        assert caplog.text.count("further containers are opened for every pass") <= 1
        for number in range(15):  # those that keep their files go, others take their place
            containers.remove(f"{number:064x}", "docker")
        sampler.sample_all()
        assert all(target.cgroup.keeps for target in sampler.targets().values())
        assert sampler.latest(HOST) is not None
