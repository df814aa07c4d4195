"""A limit of open files that is too low for all containers loses none of them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

COUNT = 25
#: In a process of its own: how many files this one has open is for the tests before to say.
SAMPLE = """
import logging, os, resource, sys
from collector.container import Container
from collector.discovery.registry import Containers
from collector.sampler import HOST, Sampler
from exporters.prometheus.exposition import Exposition
from exporters.prometheus.self_metrics import SelfMetrics, sampling_metrics

LIMIT = 300
logging.basicConfig(level=logging.WARNING, format="%(message)s")
resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
containers = Containers()
sampler = Sampler(containers)
paths = sys.argv[1:]
for number, path in enumerate(paths):
    containers.update(Container(f"{number:064x}", f"c{number}", engine="docker", cgroup=path))
exposition, own = Exposition(containers, sampler), SelfMetrics()
own.register(sampling_metrics(sampler, exposition))
for _ in range(3):
    sampler.sample_all()
    page = exposition.render().decode()
    found = page.count("\\ncontainer_memory_usage_bytes{")
    assert found == len(paths) + 1, found  # and the host
assert sampler.failures == {}, sampler.failures
targets = sampler.targets().values()
reopened = sum(not target.cgroup.keeps for target in targets)
assert 0 < reopened < len(paths), reopened
assert f"taffrail_sampling_reopened_containers {reopened}.0".encode() in own.text()
assert len(os.listdir("/proc/self/fd")) < LIMIT
for number in range(15):  # those that keep their files go, others take their place
    containers.remove(f"{number:064x}", "docker")
sampler.sample_all()
assert all(target.cgroup.keeps for target in sampler.targets().values())
assert sampler.latest(HOST) is not None
sampler.close()
"""


def test_containers_over_the_limit_are_sampled_and_scraped(make_cgroup: Any) -> None:
    paths = [make_cgroup().path for _ in range(COUNT)]
    done = subprocess.run(
        [sys.executable, "-c", SAMPLE, *paths],
        check=False, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONWARNINGS": "error"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("further containers are opened for every pass") == 1
