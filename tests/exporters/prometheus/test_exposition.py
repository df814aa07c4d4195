from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from collector.container import Container, LogSource
from collector.discovery.registry import Containers
from collector.host.hardware import Hardware
from collector.roots import Roots
from collector.sample import Cpu, Interface, Memory, Sample
from collector.sampler import Sampler
from exporters.prometheus.exposition import Exposition
from exporters.prometheus.families import BEYOND, FAMILIES, Kind
from exporters.prometheus.labels import LabelRules

FIXTURES = Path(__file__).parents[2] / "fixtures"
ID = "4f" * 32
NOW = 2_000_000_000 * 10**9
WEB = Container(
    id=ID,
    name="web",
    image="nginx:1.27",
    image_id="sha256:12",
    engine="docker",
    pid=4242,
    cgroup=f"/docker/{ID}",
    network_mode="bridge",
    created_ns=1_999_999_000 * 10**9,
    started_ns=1_999_999_001 * 10**9,
    restarts=1,
    health="healthy",
    labels={"com.docker.compose.project": "shop", "secret": "x"},
    log=LogSource("json-file"),
)
EXITED = Container(
    id="5e" * 32,
    name="job",
    image="busybox",
    engine="docker",
    state="exited",
    cgroup="/docker/" + "5e" * 32,
    exit_code=3,
    oom_killed=True,
    created_ns=1_999_998_000 * 10**9,
)


class Recorded:
    """A recorded host with its registry, sampler and page; time stands still unless told otherwise."""

    def __init__(self, name: str, **options: Any) -> None:
        self.now = NOW
        self.containers = Containers(300, lambda: self.now)
        roots = Roots(*(FIXTURES / name / part for part in ("proc", "sys", "root")))
        self.sampler = Sampler(self.containers, roots)
        self.page = Exposition(self.containers, self.sampler, version="1.2.3", **options)

    def text(self, *names: str) -> str:
        self.sampler.sample_all(self.now)
        return self.page.render(self.now, names).decode()

    def series(self, *names: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        found = {}
        for family in text_string_to_metric_families(self.text(*names)):
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in found, f"{key} twice"
                found[key] = sample.value
        return found

    def of(self, container: str) -> dict[str, list[float]]:
        """Values by name of one container's series."""
        values: dict[str, list[float]] = {}
        for (name, labels), value in self.series().items():
            if ("name", container) in labels:
                # The parser appends _total to every counter, as OpenMetrics has it.
                name = "container_memory_failcnt" if name == "container_memory_failcnt_total" else name
                values.setdefault(name, []).append(value)
        return values


@pytest.fixture
def host() -> Any:
    made: list[Recorded] = []

    def make(name: str = "hybrid", **options: Any) -> Recorded:
        made.append(Recorded(name, **options))
        return made[-1]

    yield make
    for recorded in made:
        recorded.sampler.close()


def cgroup_of(name: str) -> str:
    return f"/system.slice/docker-{ID}.scope" if name == "v2" else f"/docker/{ID}"


def test_every_row_of_the_table_appears_on_some_host(host: Callable[..., Recorded]) -> None:
    seen = {"container_memory_failcnt"}  # which the parser renames
    for name in ("v1", "v2"):
        recorded = host(name)
        recorded.containers.update(replace(WEB, cgroup=cgroup_of(name)))
        recorded.containers.update(EXITED)
        seen.update(name for name, _ in recorded.series())
    real = Sampler(Containers())  # recorded hosts have no file system of their own
    real.sample_all()
    text = Exposition(Containers(), real).render().decode()
    seen.update(line.split("{")[0] for line in text.splitlines() if line.startswith("container_fs"))
    real.close()
    # What lanes read is in tests/collector/lanes, what a machine is built of further down.
    assert {family.name for family in FAMILIES if family.group not in ("lane", "hardware")} - seen == set()


def test_types_and_help_are_one_per_name() -> None:
    for name in {family.name for family in FAMILIES}:
        rows = [number for number, family in enumerate(FAMILIES) if family.name == name]
        assert rows == list(range(rows[0], rows[0] + len(rows))), f"rows of {name} are apart"
        assert len({(FAMILIES[row].kind, FAMILIES[row].help) for row in rows}) == 1


def test_unlimited_is_0_and_no_quota_is_no_series(host: Callable[..., Recorded]) -> None:
    recorded = host("v1")
    sample = Sample(NOW, Cpu(1.0), Memory(10, 5))
    recorded.containers.update(replace(WEB, pid=0, cgroup="/docker/none"))
    recorded.sampler.latest = lambda _: sample  # type: ignore[method-assign]
    web = recorded.of("web")
    assert web["container_spec_memory_limit_bytes"] == [0]
    assert web["container_spec_memory_swap_limit_bytes"] == [0]
    assert web["container_memory_max_usage_bytes"] == [0]
    assert "container_spec_cpu_quota" not in web
    assert not any(name.startswith("container_cpu_cfs") for name in web)
    assert "container_memory_rss" not in web  # absent in the kernel, absent here


def test_per_cpu_usage_takes_the_place_of_the_total(host: Callable[..., Recorded]) -> None:
    recorded = host("v1")
    recorded.containers.update(replace(WEB, pid=0, cgroup="/docker/none"))
    recorded.sampler.latest = lambda _: Sample(NOW, Cpu(3.0, per_cpu_seconds=(1.0, 2.0)))  # type: ignore[method-assign]
    usage = {
        dict(labels)["cpu"]: value
        for (name, labels), value in recorded.series().items()
        if name == "container_cpu_usage_seconds_total" and ("name", "web") in labels
    }
    assert usage == {"cpu00": 1.0, "cpu01": 2.0}


def test_a_counter_of_0_is_there_so_that_rate_can_start(host: Callable[..., Recorded]) -> None:
    recorded = host("v1")
    recorded.containers.update(replace(WEB, pid=0, cgroup="/docker/none"))
    recorded.sampler.latest = lambda _: Sample(NOW, Cpu(0.0))  # type: ignore[method-assign]
    assert recorded.of("web")["container_cpu_usage_seconds_total"] == [0.0]


def test_after_the_end_counters_stay_gauges_go_and_last_seen_is_frozen(host: Callable[..., Recorded]) -> None:
    recorded = host()
    recorded.containers.update(WEB)
    alive = recorded.of("web")
    recorded.now += 2 * 10**9
    recorded.containers.update(replace(WEB, state="exited", pid=0, exit_code=137))
    recorded.now += 60 * 10**9
    ended = recorded.of("web")
    assert ended["container_last_seen"] == [NOW // 10**9 + 2]
    assert ended["container_exit_code"] == [137]
    kinds = {family.name: family.kind for family in FAMILIES}
    gauges = {name for name in ended if kinds[name] is Kind.GAUGE}
    assert gauges == {
        "container_last_seen",
        "container_state",
        "container_exit_code",
        "container_info",
        "container_start_time_seconds",
    }
    counters = {name for name in alive if kinds[name] is Kind.COUNTER}
    assert {name: ended[name] for name in counters} == {name: alive[name] for name in counters}
    recorded.now += 300 * 10**9
    assert set(recorded.of("web")) == {
        "container_state",
        "container_exit_code",
        "container_info",
        "container_start_time_seconds",
        "container_restarts_total",
        "container_oom_events_total",
        "container_oom_kills_total",
    }
    recorded.containers.remove(ID, "docker")
    assert recorded.of("web") == {}


def test_a_privileged_container_is_told_apart(host: Callable[..., Recorded]) -> None:
    recorded = host()
    recorded.containers.update(replace(WEB, privileged=True))
    recorded.containers.update(EXITED)
    told = {dict(labels)["name"]: dict(labels) for _, labels in recorded.series("container_info")}
    assert told["web"]["privileged"] == "true"
    assert "privileged" not in told["job"]


def test_a_removed_container_tells_its_exit_code_for_five_minutes(host: Callable[..., Recorded]) -> None:
    recorded = host()
    recorded.containers.update(WEB)
    recorded.containers.update(replace(WEB, state="exited", pid=0, exit_code=7))
    recorded.containers.remove(ID, "docker")
    recorded.now += 299 * 10**9
    assert recorded.of("web")["container_exit_code"] == [7]
    recorded.now += 2 * 10**9
    assert recorded.of("web") == {}


@pytest.mark.parametrize(("health", "value"), [("healthy", 1), ("starting", 0), ("unhealthy", 0), ("", -1)])
def test_health(host: Callable[..., Recorded], health: str, value: int) -> None:
    recorded = host()
    recorded.containers.update(replace(WEB, health=health))
    assert recorded.of("web")["container_health_state"] == [value]


def test_a_change_of_state_is_another_series(host: Callable[..., Recorded]) -> None:
    recorded = host()
    for state in ("running", "paused"):
        recorded.containers.update(replace(WEB, state=state))
        states = [dict(labels)["state"] for name, labels in recorded.series() if name == "container_state"]
        assert states == [state]


def test_an_oom_kill_the_engine_knows_of_is_counted_at_least_once(host: Callable[..., Recorded]) -> None:
    recorded = host()
    recorded.containers.update(EXITED)
    assert recorded.of("job")["container_oom_kills_total"] == [1]


def test_interfaces_and_devices_come_and_go(host: Callable[..., Recorded]) -> None:
    recorded = host("v1")
    recorded.containers.update(replace(WEB, pid=0, cgroup="/docker/none"))
    eth = tuple(Interface(f"eth{n}", n, 0, 0, 0, 0, 0, 0, 0) for n in range(3))
    for count in (1, 3, 2):
        recorded.sampler.latest = lambda _, count=count: Sample(NOW, interfaces=eth[:count])  # type: ignore[method-assign]
        assert recorded.of("web")["container_network_receive_bytes_total"] == list(map(float, range(count)))


def test_the_host_is_there_without_any_container(host: Callable[..., Recorded]) -> None:
    series = host("v2").series()
    labels = frozenset({("id", "/"), ("cpu", "total")})
    assert series["container_cpu_usage_seconds_total", labels] == 24691.3578
    assert series["container_memory_usage_bytes", frozenset({("id", "/")})] == 700 << 20  # anon and file
    assert [value for (name, _), value in series.items() if name == "machine_cpu_cores"] == [2]
    device = frozenset({("id", "/"), ("device", "/dev/nvme0n1")})
    assert series["container_fs_reads_bytes_total", device] == 400000 * 512
    assert series["container_scrape_error", frozenset()] == 0


def test_a_failed_counter_sets_the_scrape_error(host: Callable[..., Recorded]) -> None:
    recorded = host("v1")
    recorded.containers.update(replace(WEB, pid=0, cgroup="/docker/none"))
    bad = Sample(NOW, Cpu(1.0), errors=("memory: broken",))
    recorded.sampler.latest = lambda _: bad  # type: ignore[method-assign]
    assert recorded.series()["container_scrape_error", frozenset()] == 1
    assert recorded.of("web")["container_cpu_usage_seconds_total"] == [1.0]


def test_over_the_limit_whole_containers_are_left_off_and_counted(
    host: Callable[..., Recorded], caplog: pytest.LogCaptureFixture
) -> None:
    unlimited = host()
    unlimited.containers.update(WEB)
    unlimited.text()
    recorded = host(max_series=unlimited.page.series + 10)
    recorded.containers.update(WEB)
    recorded.containers.update(replace(WEB, id="6a" * 32, name="late"))
    assert recorded.of("late") == {}
    assert recorded.page.dropped_series > 0
    before = recorded.page.dropped_series
    assert recorded.of("web")["container_last_seen"] == [NOW // 10**9]
    assert recorded.page.dropped_series > before  # of every scrape
    assert recorded.page.left_out == 1
    assert caplog.text.count("1 containers are left off /metrics: late") == 1  # once for the same ones
    recorded.containers.remove("6a" * 32, WEB.engine)
    recorded.containers.update(replace(WEB, id="6b" * 32, name="later"))
    recorded.text()
    assert recorded.page.left_out == 2  # its tombstone has series, too
    assert "2 containers are left off /metrics: " in caplog.text


def test_only_the_families_asked_for(host: Callable[..., Recorded]) -> None:
    recorded = host()
    recorded.containers.update(WEB)
    text = recorded.text("container_last_seen", "no_such_family")
    assert {line.split("{")[0] for line in text.splitlines() if line[0] != "#"} == {"container_last_seen"}
    assert recorded.text("no_such_family") == ""
    assert len(recorded.text()) > 10 * len(text)  # and the whole page is whole afterwards


def test_a_change_first_seen_by_a_filtered_page_is_on_the_whole_one(host: Callable[..., Recorded]) -> None:
    recorded = host()
    recorded.containers.update(WEB)
    recorded.text()
    recorded.containers.update(replace(WEB, id="6c" * 32, name="new", restarts=7))
    assert "new" in recorded.text("container_last_seen")
    assert recorded.of("new")["container_restarts_total"] == [7]
    recorded.containers.remove(WEB.id, WEB.engine)
    recorded.text("container_last_seen")
    assert recorded.of("new")["container_restarts_total"] == [7]


def test_labels_by_default_and_all(host: Callable[..., Recorded]) -> None:
    recorded, everything = host(), host(rules=LabelRules(all=True))
    for each in (recorded, everything):
        each.containers.update(WEB)
    label = 'container_label_com_docker_compose_project="shop"'
    assert label in recorded.text()
    assert "secret" not in recorded.text()
    assert 'container_label_secret="x"' in everything.text()


def test_no_sample_has_a_timestamp(host: Callable[..., Recorded]) -> None:
    recorded = host()
    recorded.containers.update(WEB)
    for line in recorded.text().splitlines():
        if line[0] != "#":
            assert len(line.rpartition("}")[2].split()) in (1, 2)
            assert line.rpartition(" ")[0].endswith("}") or line.count(" ") == 1


def test_names_beyond_cadvisors_are_in_the_table() -> None:
    assert {family.name for family in BEYOND} <= {family.name for family in FAMILIES}


def test_a_containers_broken_counter_costs_neither_it_nor_others_the_rest(
    host: Callable[..., Recorded], tmp_path: Path
) -> None:
    shutil.copytree(FIXTURES / "v1", tmp_path / "v1", symlinks=True)
    other = "6a" * 32
    for directory in [*tmp_path.rglob(ID)]:
        shutil.copytree(directory, directory.with_name(other))
        if (directory / "memory.usage_in_bytes").exists():
            (directory.with_name(other) / "memory.usage_in_bytes").write_text("not a number\n")
    recorded = host(tmp_path / "v1")
    recorded.containers.update(replace(WEB, id=other, name="broken", pid=0, cgroup=f"/docker/{other}"))
    recorded.containers.update(WEB)
    web, broken = recorded.of("web"), recorded.of("broken")
    assert "container_memory_usage_bytes" not in broken
    assert set(web) - set(broken) > {"container_memory_usage_bytes"}
    assert broken["container_cpu_usage_seconds_total"] == web["container_cpu_usage_seconds_total"]
    assert web["container_memory_usage_bytes"]
    assert recorded.series()["container_scrape_error", frozenset()] == 1
    assert recorded.sampler.failures["memory"] >= 1


def test_slices_and_services_are_there_only_where_asked_for(host: Callable[..., Recorded]) -> None:
    recorded = host("v1")
    recorded.containers.offer(Container("/system.slice", "", cgroup="/system.slice"))
    recorded.containers.update(replace(WEB, pid=0, cgroup="/docker/none"))

    def ids() -> set[str]:
        return {dict(labels).get("id", "") for _, labels in recorded.series("container_last_seen")}

    assert ids() == {"/", "/docker/none"}
    recorded.page.all_cgroups = True
    assert ids() == {"/", "/docker/none", "/system.slice"}


def test_the_topology_is_told_as_cadvisor_does(host: Callable[..., Recorded], tmp_path: Path) -> None:
    recorded = host("v2")
    cpu = tmp_path / "devices/system/cpu/cpu0"
    node = tmp_path / "devices/system/node/node0"
    for path, text in {
        cpu / "topology/core_id": "1",
        cpu / "topology/physical_package_id": "0",
        cpu / "cache/index0/level": "1",
        cpu / "cache/index0/type": "Data",
        cpu / "cache/index0/size": "48K",
        cpu / "cache/index0/shared_cpu_list": "0",
        node / "cpulist": "0",
        node / "distance": "10",
        node / "meminfo": "Node 0 MemTotal: 4 kB",
        node / "hugepages/hugepages-2048kB/nr_hugepages": "7",
        tmp_path / "devices/system/edac/mc/mc0/dimm0/dimm_mem_type": "Unbuffered-DDR4",
        tmp_path / "devices/system/edac/mc/mc0/dimm0/size": "16",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    recorded.sampler.roots = replace(recorded.sampler.roots, sys=tmp_path)
    recorded.page.topology = True
    own = {"boot_id", "machine_id", "system_uuid"}
    found = {
        (name, *sorted(f"{key}={text}" for key, text in labels if key not in own)): value
        for (name, labels), value in recorded.series().items()
        if name in {family.name for family in FAMILIES if family.group == "hardware"}
    }
    assert (
        found["machine_cpu_cache_capacity_bytes", "core_id=1", "level=1", "node_id=0", "type=Data"] == 49152
    )
    assert found["machine_thread_siblings_count", "core_id=1", "node_id=0", "thread_id=0"] == 1
    assert found["machine_node_memory_capacity_bytes", "node_id=0"] == 4096
    assert found["machine_node_hugepages_count", "node_id=0", "page_size=2048"] == 7
    assert found["machine_dimm_count", "type=Unbuffered-DDR4"] == 1
    assert found["machine_dimm_capacity_bytes", "type=Unbuffered-DDR4"] == 16 << 20
    assert {name for name, *_ in found} == {family.name for family in FAMILIES if family.group == "hardware"}
    assert found["machine_node_distance", "node_id=0", "target_node_id=0"] == 10


def test_a_clock_that_was_set_back_does_not_stop_the_host_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a start with a clock of years ahead, say."""
    read: list[str] = []

    def filesystems(_roots: Roots) -> tuple[()]:
        read.append("file systems")
        return ()

    def hardware(_roots: Roots, *, topology: bool) -> Hardware:
        read.append("hardware")
        return Hardware()

    monkeypatch.setattr("exporters.prometheus.exposition.read_filesystems", filesystems)
    monkeypatch.setattr("exporters.prometheus.exposition.read_hardware", hardware)
    containers = Containers()
    sampler = Sampler(containers)
    page = Exposition(containers, sampler)
    for now_ns in (NOW, NOW + 10**9, NOW - 10**18, NOW - 10**18 + 10**9):
        page.render(now_ns)
    sampler.close()
    assert read == ["file systems", "hardware"] * 2
