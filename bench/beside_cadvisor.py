"""Every series of a real cAdvisor beside ours for the same containers: names, types, labels and values.

Containers with different loads run on one dockerd, both watch it with every group of counters on. A value of
cAdvisor's, which is up to two of its intervals old, has to lie within those that ours had meanwhile, give or
take a tolerance; where we say something else on purpose, ``ON_PURPOSE`` has why, and docs/prometheus.md too.
"""

from __future__ import annotations

import itertools
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from bench.engines import IMAGE
from bench.watchers import Docker, Watcher, cadvisor, taffrail

__all__ = ["Difference", "Page", "compare", "differences"]

_HOLD = "mkfifo /full; sleep 9999 <>/full & exec dd if=/dev/zero of=/full bs=100M count=1"
_KILLED = "while :; do dd if=/dev/zero of=/dev/null bs=64M count=1 & wait; sleep 1; done"
#: What runs: options and a script.
LOADS: Mapping[str, tuple[Sequence[str], str]] = {
    "burner": (("--cpus", "0.5", "--cpu-shares", "512"), "while :; do :; done"),
    "holder": (("-m", "200m", "--memory-reservation", "100m", "--pids-limit", "50"), _HOLD),
    "killed": (("-m", "16m", "--memory-swap", "16m", "--oom-score-adj", "500"), _KILLED),
    "writer": (("-v", "/volume"), "while :; do dd if=/dev/zero of=/volume/f bs=1M count=4 conv=fsync; sleep 1; done"),
    "layer": ((), "dd if=/dev/zero of=/layer bs=1M count=8; while :; do cat /layer > /dev/null; sleep 1; done"),
    "server": (("-l", "a.b/c=d"), "while :; do nc -l -p 80 -e cat > /dev/null; done"),
    "talker": ((), "while :; do head -c 100000 /dev/zero | nc -w 1 server 80 > /dev/null; sleep 1; done"),
    "healthy": (("--health-cmd", "true", "--health-interval", "1s"), "while :; do sleep 1; done"),
    "ill": (("--health-cmd", "false", "--health-interval", "1s", "--health-retries", "1"), "while :; do sleep 1; done"),
    "alone": (("--network", "none"), "while :; do sleep 1; done"),
    "host": (("--network", "host"), "while :; do sleep 1; done"),
    "joined": (("--network", "container:peer-talker"), "while :; do sleep 1; done"),
}  # fmt: skip
GROUPS = (
    "advtcp cpu cpuLoad cpu_topology cpuset disk diskIO hugetlb memory memory_numa network oom_event percpu pressure "
    "process referenced_memory sched tcp udp"
)
_EACH_SECOND = (
    "tcp udp netstat sockstat process cpuLoad hugetlb advtcp sched memory_numa cpuset referenced_memory"
)
OURS = (
    "collector.host_groups=",
    "collector.groups=+percpu,+sched,+advtcp,+memory_numa,+cpuset,+cpu_topology,+referenced_memory",
    f"collector.group_intervals={_EACH_SECOND.replace(' ', '=1s,')}=1s,disk=5s",
    "prometheus.container_labels=all",
)

_WHOLE_DEVICES = (
    "container_fs_(io_current|io_time_(weighted_)?seconds_total|(read|write)_seconds_total"
    "|(reads|writes)_merged_total|sector_(reads|writes)_total)"
)
#: What differs because we mean it: kind, families (with `` of /`` the host's), why. docs/prometheus.md has it, too.
ON_PURPOSE: Sequence[tuple[str, str, str]] = (
    (
        "missing",
        "container_memory_(events_(high|max)|pgscan|pgsteal)_total",
        "v1 does not count it, 0 is no count",
    ),
    (
        "series",
        "container_blkio_device_usage_total.*",
        "reads and writes, as on v2; others are parts and sums of them",
    ),
    ("series", _WHOLE_DEVICES, "counted of whole devices, whoever used them: on the host's series alone"),
    (
        "series",
        "container_network_advance_tcp_stats_total",
        "Linux does not count it any more, 0 is no count",
    ),
    (
        "series",
        "container_network_.*",
        "a namespace is told once, of its owner, and the host's of no container",
    ),
    ("series", "container_cpu_usage_seconds_total of /", "one series; by CPU it is node_cpu_seconds_total"),
    ("series", "container_fs_.* of /", "no file systems in memory, no devices without a name"),
    ("series", "container_.* of /", "of processes in the root cgroup alone; of the host there is node_*"),
    (
        "value",
        "container_fs_inodes_(free|total)",
        "of the file system; cAdvisor counts its walk's and has 0 free",
    ),
    ("value", "container_pressure_.*", "read from the unified tree beside v1, too"),
    (
        "value",
        "container_cpu_schedstat_.*",
        "of all threads, ended ones included; cAdvisor's of each process's first",
    ),
    (
        "value",
        "container_(blkio|fs_(reads|writes)).* of /",
        "of whole devices; cAdvisor's of the root cgroup alone",
    ),
    ("value", "container_fs_.*_seconds_total of /", "seconds; cAdvisor divides milliseconds by a billion"),
    (
        "value",
        "container_memory_failures_total of /",
        "of the whole host; cAdvisor's of the root cgroup alone",
    ),
)

#: The same for some of the containers only: kind, families, containers, why.
ON_PURPOSE_OF: Sequence[tuple[str, str, str, str]] = (
    (
        "series",
        "container_fs_(reads|writes)_total",
        "(?!writer).*",
        "of whole devices where the container has no I/O",
    ),
    (
        "series",
        "container_network_.*",
        "alone|host|joined",
        "a namespace is told once, of its owner; the host's and one with a loopback interface alone of none",
    ),
)

_BASE = ("id", "image", "name")
#: The part of a value by which it may lie outside, and as much again in the series' unit, by the name's end.
_TOLERANCES: Sequence[tuple[str, float, float]] = (
    (r"container_spec_.*|machine_.*", 0.0, 0.0),
    # What a process that is just being started changes by chance between two looks.
    (r"container_(file_descriptors|sockets|processes|tasks_state|threads)", 0.0, 16.0),
    (r"container_cpu_load_.*", 0.0, 2000.0),
    (r"container_memory_numa_pages", 0.1, 128.0),
    (r"container_referenced_bytes", 0.1, 2.0**21),
    (r"container_memory_(rss|kernel_usage|swap|cache|mapped_file)", 0.02, 512 * 1024),
    (r".*_seconds_total", 0.02, 0.05),
    (r".*_bytes(_total)?", 0.02, 512 * 1024),
    (r".*", 0.02, 2.0),
)

Series = tuple[str, frozenset[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class Page:
    """A page of either, taken apart."""

    types: Mapping[str, str]
    values: Mapping[str, Mapping[Series, float]]  #: by container, "/" the host, "" everything without an id
    labels: Mapping[str, Mapping[str, str]]  #: what says whose a series is, by container

    @classmethod
    def parse(cls, text: str, only: Iterable[str]) -> Page:
        """Containers of these names and the host's own series alone."""
        types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
        values: dict[str, dict[Series, float]] = defaultdict(dict)
        labels: dict[str, dict[str, str]] = {}
        wanted = set(only)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                whose = sample.labels.get("name") or sample.labels.get("id", "")
                if whose not in wanted | {"/", ""} or not sample.name.startswith(("container_", "machine_")):
                    continue
                own: dict[str, str] = {}
                base: dict[str, str] = {}
                for key, value in sample.labels.items():
                    identity = key in _BASE or key.startswith("container_label_")
                    if value:
                        (base if identity else own)[key] = value
                values[whose][sample.name, frozenset(own.items())] = sample.value
                labels[whose] = base
        return cls(types, values, labels)


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which a family differs, all its series together."""

    kind: str  #: ``missing``, ``type``, ``labels``, ``series``, ``value``
    family: str
    detail: str
    containers: frozenset[str] = frozenset()

    def reason(self) -> str:
        """Why it is meant to differ, or "" where it is not."""
        for kind, families, why in ON_PURPOSE:
            if kind == self.kind and re.fullmatch(families, self.family):
                return why
        for kind, families, containers, why in ON_PURPOSE_OF:
            all_of_them = all(re.fullmatch(containers, container) for container in self.containers)
            if kind == self.kind and re.fullmatch(families, self.family) and all_of_them:
                return why
        return ""


def differences(theirs: Page, ours: Sequence[Page]) -> Iterator[Difference]:
    """What of ``theirs`` none of our pages says; one a family and kind, its first series in the detail."""
    latest = ours[-1]
    names = {name for series in latest.values.values() for name, _ in series}
    details: dict[tuple[str, str], list[str]] = defaultdict(list)
    for whose in sorted(theirs.values, reverse=True):
        for (name, own), value in theirs.values[whose].items():
            found = _differ(theirs, ours, whose, name, own, value, names)
            if found is not None:
                family = f"{name} of /" if whose == "/" and found[0] != "missing" else name
                details[found[0], family].append(f"{whose.removeprefix('peer-')} {_shown(own)} {found[1]}")
    for (kind, family), each in details.items():
        whom = frozenset(text.split(" ")[0] for text in each)
        more = f"; {len(each) - 1} more, of {', '.join(sorted(whom))}" if each[1:] else ""
        yield Difference(kind, family, each[0] + more, whom)
    for whose, labels in theirs.labels.items():
        if whose in latest.labels and labels != latest.labels[whose]:
            changed = set(labels.items()) ^ set(latest.labels[whose].items())
            yield Difference("labels", "of the container", f"{whose}: {sorted(changed)}")


def _differ(
    theirs: Page, ours: Sequence[Page], whose: str, name: str, own: frozenset[tuple[str, str]], value: float,
    names: set[str],
) -> tuple[str, str] | None:  # fmt: skip
    """Kind and detail of what is different about one series."""
    latest = ours[-1]
    if name not in names:
        return "missing", f"{value:g}, {theirs.types.get(name)}"
    if theirs.types.get(name) != latest.types.get(name):
        return "type", f"{theirs.types.get(name)}, ours {latest.types.get(name)}"
    mine = [page.values[whose][name, own] for page in ours if (name, own) in page.values.get(whose, {})]
    if not mine:
        have = sorted(_shown(labels) for other, labels in latest.values.get(whose, {}) if other == name)
        return "series", f"{value:g}, ours has {', '.join(have[:4]) or 'none'}"
    relative, absolute = next((part, much) for end, part, much in _TOLERANCES if re.fullmatch(end, name))
    slack = relative * abs(value) + absolute
    if min(mine) - slack <= value <= max(mine) + slack:
        return None
    return "value", f"{value:.10g}, ours {min(mine):.10g} to {max(mine):.10g}"


def _shown(own: Iterable[tuple[str, str]]) -> str:
    return "{" + ",".join(f'{key}="{value}"' for key, value in sorted(own)) + "}"


def extra(theirs: Page, ours: Page) -> list[str]:
    """Families that only ours has."""
    have = {name for series in theirs.values.values() for name, _ in series}
    mine = {name for series in ours.values.values() for name, _ in series}
    return sorted(mine - have)


def run_loads(docker: Docker) -> list[str]:
    """Start the containers; their names."""
    addresses: list[str] = []
    for name, (options, script) in LOADS.items():
        own = ["--add-host", f"server:{addresses[0]}"] if name == "talker" else []
        docker.engine.docker("run", "-d", "--name", f"peer-{name}", *own, *options, IMAGE, "sh", "-c", script)
        if name == "server":
            form = "{{.NetworkSettings.IPAddress}}"
            addresses.append(docker.engine.docker("inspect", "-f", form, "peer-server"))
    return [f"peer-{name}" for name in LOADS]


def pages(theirs: Watcher, ours: Watcher, names: Sequence[str]) -> tuple[Page, list[Page]]:
    """One page of cAdvisor's, and ours of the six seconds before and one after."""
    assert theirs.scrape is not None
    assert ours.scrape is not None
    mine = []
    for _ in range(12):
        mine.append(ours.scrape())
        time.sleep(0.5)
    page = theirs.scrape()
    mine.append(ours.scrape())
    return Page.parse(page.decode(), names), [Page.parse(text.decode(), names) for text in mine]


def compare(docker: Docker, program: Path, keep: Path | None = None) -> int:
    """Print every difference, those on purpose with their reason; 1 if there are others."""
    names = run_loads(docker)
    more = (f"-enable_metrics={','.join(GROUPS.split())}", "-enable_load_reader=true",
            "-allow_dynamic_housekeeping=false")  # fmt: skip
    with cadvisor(docker, program, *more) as theirs, taffrail(docker, *OURS) as ours:
        deadline = time.monotonic() + 120
        while min(theirs.seen(), ours.seen()) < len(names) and time.monotonic() < deadline:
            time.sleep(1)
        time.sleep(70)  # cAdvisor looks at disks once a minute
        page, mine = pages(theirs, ours, names)
        if keep is not None:
            keep.mkdir(exist_ok=True)
            for watcher in (theirs, ours):
                assert watcher.scrape is not None
                (keep / watcher.name).write_bytes(watcher.scrape())
    found = list(differences(page, mine))
    for kind, group in itertools.groupby(sorted(found, key=lambda one: one.kind), lambda one: one.kind):
        print(f"\n{kind}:")
        for one in group:
            print(
                f"  {one.family}: {one.detail}" + (f" (on purpose: {one.reason()})" if one.reason() else "")
            )
    print("\nours alone: " + ", ".join(extra(page, mine[-1])))
    open_ = [one for one in found if not one.reason()]
    series = sum(map(len, page.values.values()))
    print(
        f"\n{series} series of cAdvisor's, {len(found)} kinds of difference, {len(open_)} of them not on purpose"
    )
    return int(bool(open_))
