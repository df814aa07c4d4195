"""Recorded hosts end to end: found by discovery, read by the sampler, compared as the page Prometheus gets.

The hosts are in ``tests/fixtures/hosts`` (``tests/host_archive.py`` has the format), their pages in
``tests/golden/hosts``. After a change of the product that is meant, write the pages anew and read the diff:

    .venv/bin/python -m pytest tests/end_to_end/test_recorded_hosts.py --update-golden
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import host_archive
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from collector.container import Container
from collector.discovery.cgroups import CgroupDiscovery
from collector.discovery.engine_api import EngineDiscovery
from collector.discovery.registry import RUNNING, Containers
from collector.roots import Roots
from collector.sampler import Sampler
from exporters.prometheus.exposition import Exposition
from exporters.prometheus.families import FAMILIES
from exporters.prometheus.labels import LabelRules

NOW = 2_000_000_000 * 10**9
#: cAdvisor's own names that promtool would have otherwise, and which are kept.
KNOWN = ("cadvisor_version_info ", "container_fs_inodes_total ", "container_memory_failcnt ")


@contextlib.asynccontextmanager
async def engine(directory: Path) -> AsyncIterator[Path]:
    """Answers as the recorded engine did; its events never come."""
    app = web.Application()

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/events":
            response = web.StreamResponse()
            await response.prepare(request)
            await asyncio.Event().wait()
        return web.Response(body=(directory / "api" / request.path[1:]).read_bytes())

    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    place = Path(tempfile.mkdtemp(dir="/tmp", prefix="tfe"))
    try:
        await web.UnixSite(runner, str(place / "s")).start()
        yield place / "s"
    finally:
        await runner.cleanup()
        shutil.rmtree(place)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def follow(directory: Path, containers: Containers, work: contextlib.AsyncExitStack) -> None:
    """Start discovery as the agent does, and wait until it has found what is there."""
    engines = []
    if (directory / "api").is_dir():
        socket = await work.enter_async_context(engine(directory))
        engines.append(EngineDiscovery(socket, containers, directory / "proc"))
    discovery = CgroupDiscovery(
        containers,
        Roots(*(directory / part for part in ("proc", "sys", "root"))),
        lambda name: any(each.follows(name) for each in engines),
    )
    tasks = [asyncio.create_task(each.run()) for each in (*engines, discovery)]

    async def stop() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    work.push_async_callback(stop)
    await until(lambda: discovery.watches and all(each.connected for each in engines))
    assert discovery.failures == {}


async def happen(directory: Path, containers: Containers) -> None:
    """What the host's file ``then`` says happens next, a line each: ``remove CGROUP``, and ``write PATH TEXT`` for
    what an engine leaves of the container whose id is in the path: its exit code is waited for.
    """
    path = directory / "then"
    for line in path.read_text().splitlines() if path.exists() else ():
        word, _, rest = line.partition(" ")
        if word == "write":
            file, _, text = rest.partition(" ")
            _replace(directory / file, text + "\n")
            (own,) = (container for container in containers.all() if container.id in file)
            await until(lambda own=own: _now(containers, own).exit_code is not None)
        else:
            for cgroup in (directory / "sys/fs/cgroup").glob(f"**/{rest}"):
                shutil.rmtree(cgroup)
            (own,) = (container for container in containers.all() if container.cgroup == f"/{rest}")
            await until(lambda own=own: _now(containers, own).state not in RUNNING)


def _replace(path: Path, text: str) -> None:
    """As engines do it: nobody sees half of it."""
    new = path.with_name(".new")
    new.write_text(text)
    new.rename(path)


def _now(containers: Containers, container: Container) -> Container:
    found = containers.get(container.id)
    assert found is not None
    return found


async def rendered(directory: Path, rules: LabelRules, *names: str, all_cgroups: bool = False) -> str:
    """The page of a recorded host after what happened; of the families named, where any are."""
    containers = Containers(300, lambda: NOW)
    roots = Roots(*(directory / part for part in ("proc", "sys", "root")))
    sampler = Sampler(containers, roots, bare_every=1)
    exposition = Exposition(containers, sampler, rules, version="1.2.3")
    exposition.all_cgroups = all_cgroups
    async with contextlib.AsyncExitStack() as work:
        work.callback(sampler.close)
        await follow(directory, containers, work)
        for seconds in (3, 2, 1):
            sampler.sample_all(NOW - seconds * 10**9)
        await happen(directory, containers)
        sampler.sample_all(NOW)
        return exposition.render(NOW, names).decode()


def page_of(name: str, rules: LabelRules, *names: str, all_cgroups: bool = False) -> str:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="tfh") as directory:
        unpacked = host_archive.unpack(name, Path(directory))
        return asyncio.run(rendered(unpacked, rules, *names, all_cgroups=all_cgroups))


@functools.cache
def page(name: str) -> str:
    """As it is without configuration."""
    return page_of(name, LabelRules())


@pytest.fixture(params=host_archive.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_page_is_as_recorded(name: str, golden: Any) -> None:
    golden(f"hosts/{name}.prom", page(name).encode())


def test_promtool_finds_the_page_sound(name: str) -> None:
    run = subprocess.run(
        ["promtool", "check", "metrics"], input=page(name), capture_output=True, text=True, check=False
    )
    complaints = [line for line in run.stderr.splitlines() if line and not line.startswith(KNOWN)]
    assert complaints == []


def test_the_page_is_read_back_as_it_was_meant(name: str) -> None:
    kinds = {family.name: str(family.kind) for family in FAMILIES}
    seen: Counter[tuple[str, frozenset[tuple[str, str]]]] = Counter()
    for family in text_string_to_metric_families(page(name)):
        # The parser takes _total from counters' names, and adds it to their samples'.
        own = family.name if family.name in kinds else f"{family.name}_total"
        assert family.type == kinds[own], own
        assert family.documentation, own
        for sample in family.samples:
            assert sample.timestamp is None
            assert "" not in sample.labels.values(), f"{own}: an empty label is left out"
            seen[sample.name, frozenset(sample.labels.items())] += 1
    assert [series for series, count in seen.items() if count > 1] == []
    assert sum(seen.values()) == sum(line[0] != "#" for line in page(name).splitlines())


SOME = ("container_last_seen", "container_memory_working_set_bytes", "container_cpu_usage_seconds_total")


def test_labels_by_configuration(golden: Any) -> None:
    aliases = {
        "container": "name",
        "pod": "label:com.docker.compose.project",
        "namespace": "label:com.docker.stack.namespace",
    }
    text = page_of("docker-v2", LabelRules(all=True, aliases=aliases), *SOME)
    golden("hosts/docker-v2.labels.prom", text.encode())


def test_every_cgroup_where_asked_for(golden: Any) -> None:
    text = page_of("kubernetes-v2-crio", LabelRules(), *SOME, all_cgroups=True)
    golden("hosts/kubernetes-v2-crio.cgroups.prom", text.encode())
