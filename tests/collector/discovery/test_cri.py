"""A real pod of a real containerd, found by the cgroup tree and containerd's files, without its socket."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cri
import pytest

from collector.container import Container
from collector.discovery.cgroups import CgroupDiscovery
from collector.discovery.registry import Containers
from collector.enrich import Sources
from collector.inputs.tails import Tails
from collector.sampler import Sampler
from exporters.prometheus.exposition import Exposition
from logdrivers.codecs import json_file as codec

QUOTA, LIMIT = 50_000, 64 << 20
WORK = "echo hello; echo oops >&2; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo done; sleep 1000"


@pytest.fixture(scope="module")
def node() -> Iterator[Any]:
    made = cri.Cri(Path(tempfile.mkdtemp(dir="/tmp", prefix="tfk")))
    try:
        yield made
    finally:
        made.close()


async def until(condition: Callable[[], Any]) -> Any:
    async with asyncio.timeout(200):
        while not (found := condition()):
            await asyncio.sleep(0.01)
    return found


def values(page: str, name: str, container_id: str) -> list[tuple[str, float]]:
    """Labels and values of one container's series."""
    lines = [
        line for line in page.splitlines() if line.startswith(name + "{") and f'/{container_id}",' in line
    ]
    return [(line.rpartition(" ")[0], float(line.rpartition(" ")[2])) for line in lines]


def test_a_pod_its_counters_its_log_and_its_end(node: Any, intake: Any) -> None:
    uid = str(uuid.uuid4())
    cgroup = f"/{node.cgroup}/kubepods/burstable/pod{uid}"
    containers = Containers()

    def named(container_id: str) -> Container:
        found = containers.get(container_id)
        assert found is not None
        return found

    async def scenario() -> None:
        discovery = CgroupDiscovery(containers, below=f"/{node.cgroup}")
        sampler = Sampler(containers, interval=3600)
        exposition = Exposition(containers, sampler)
        tails = Tails(containers, intake, Sources(containers, "host"))
        thread = threading.Thread(target=tails.run_forever, daemon=True)
        thread.start()
        work = [asyncio.create_task(discovery.run()), asyncio.create_task(sampler.run())]
        try:
            await until(lambda: discovery.watches)
            pod = await asyncio.to_thread(node.pod, "shop-0", "prod", uid)
            app = await asyncio.to_thread(
                node.container, pod, "app", WORK, attempt=2, memory=LIMIT, quota=QUOTA
            )
            await until(lambda: containers.get(app) and containers.get(pod.id))
            found, sandbox = named(app), named(pod.id)
            assert found.name == f"k8s_app_shop-0_prod_{uid}_2"
            assert sandbox.name == f"k8s_POD_shop-0_prod_{uid}_0"
            assert (found.engine, found.image, found.cgroup) == (
                "containerd",
                "localhost/bb:1",
                f"{cgroup}/{app}",
            )
            assert found.image_id.startswith("sha256:")
            assert (found.restarts, found.memory_limit_bytes) == (2, LIMIT)
            assert found.network_mode == f"container:{pod.id}"
            assert 0 < found.started_ns - found.created_ns + 10**9 < 60 * 10**9
            assert found.log.path == f"{node.root}/pods/prod_shop-0_{uid}/app/2.log"

            await until(lambda: tails.totals().lines >= 3)
            kernel = Path(f"/sys/fs/cgroup/cpuacct{cgroup}/{app}")

            def counted() -> tuple[float, float]:
                user_ticks = int((kernel / "cpuacct.stat").read_text().split()[1])
                return int((kernel / "cpuacct.usage").read_text()) / 1e9, user_ticks / os.sysconf(
                    "SC_CLK_TCK"
                )

            least = counted()
            sampler.sample_all()
            page = exposition.render().decode()
            most = counted()
            labels = 'container="app",namespace="prod",pod="shop-0",'
            ((series, usage),) = values(page, "container_cpu_usage_seconds_total", app)
            assert labels in series
            ((_, own),) = values(page, "container_cpu_user_seconds_total", app)
            assert 0.01 < least[0] <= usage <= most[0]
            assert least[1] <= own <= most[1]
            assert values(page, "container_spec_cpu_quota", app)[0][1] == QUOTA
            assert values(page, "container_spec_cpu_shares", app)[0][1] == 512
            assert values(page, "container_cpu_cfs_periods_total", app)[0][1] > 0
            assert values(page, "container_spec_memory_limit_bytes", app)[0][1] == LIMIT
            assert values(page, "container_restarts_total", app)[0][1] == 2
            # The namespace is the pod's: counted once, by its sandbox.
            assert values(page, "container_network_receive_bytes_total", app) == []
            ((series, _),) = values(page, "container_network_receive_bytes_total", pod.id)
            assert 'interface="eth0"' in series
            assert 'namespace="prod",pod="shop-0",id=' in series
            assert 'container="' not in series

            brief = await asyncio.to_thread(node.container, pod, "brief", "sleep 3; exit 7")
            await until(lambda: containers.get(brief) and named(brief).exit_code == 7)
            node.call("StopContainer", [(1, app)])
            await until(lambda: named(app).exit_code == 137)
            assert named(app).state == "exited"
            assert app in {container.id for container in containers.all()}  # until containerd forgets it
            node.call("RemoveContainer", [(1, app)])
            await until(lambda: app not in {container.id for container in containers.all()})
            assert named(app).exit_code == 137  # by its tombstone
        finally:
            tails.stop()
            thread.join(60)
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            sampler.close()

    asyncio.run(scenario())
    name = f"k8s_app_shop-0_prod_{uid}_2"
    mine = [block for source, block in intake.blocks if source.container_name == name]
    lines = [record.log for block in mine for record in codec.decode(block.data)]
    assert sorted(lines) == [b"done\n", b"hello\n", b"oops\n"]
