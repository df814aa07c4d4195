"""A real Prometheus scrapes the agent: the dashboard's every query has data, the rules evaluate, numbers are right."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_server import Prometheus

from dashboards.grafana.docker_and_system import DASHBOARD, FILE

RULES = FILE.parent.parent / "alerts" / "containers.yml"
#: Panels that have nothing to show until something bad happens.
QUIET = {"Out-of-memory kills, 1 h"}


def cpu_seconds(pid: str) -> float:
    """User and system time of a process, by Linux's own account (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def prometheus(shared_taffrail, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Scrapes an agent with two containers, for all tests of this module."""
    taffrail = shared_taffrail
    burner = "while true; do :; done"
    writer = "while true; do echo hello; dd if=/dev/zero of=/x bs=64k count=4 conv=fsync 2>/dev/null; sleep 0.2; done"
    # So little that it gets it on a busy machine as well.
    taffrail.docker(
        "run", "-d", "--name", "burner", "--cpus", "0.1", "-l", "env=prod", image, "sh", "-c", burner
    )
    taffrail.docker("run", "-d", "--name", "writer", "-m", "64m", "-l", "env=test", image, "sh", "-c", writer)
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), taffrail.address("http"), [RULES])
    try:
        yield server
    finally:
        server.close()


def test_every_panel_has_data_and_every_rule_evaluates(prometheus: Prometheus, eventually) -> None:
    eventually(
        lambda: prometheus.query('rate(container_cpu_usage_seconds_total{name="burner"}[10s])'), "two scrapes"
    )
    fill = {"$host": ".*", "$container": ".*", "$__rate_interval": "15s"}
    for row in DASHBOARD.rows:
        for panel in row.panels:
            for target in panel.targets:
                expr = target.expr
                for name, value in fill.items():
                    expr = expr.replace(name, value)
                if panel.title not in QUIET:
                    eventually(lambda expr=expr: prometheus.query(expr), f"{panel.title}: {expr}")
    for variable in DASHBOARD.variables:
        match = re.fullmatch(r"label_values\((.*), (\w+)\)", variable.query)
        assert match is not None
        selector = match[1].replace("$host", ".*")
        assert prometheus.get("series", **{"match[]": selector}), variable.query
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) >= 12
    eventually(
        lambda: all(
            rule["health"] == "ok" for group in prometheus.get("rules")["groups"] for rule in group["rules"]
        ),
        "every rule evaluated",
    )


def test_every_series_of_ours_is_documented(prometheus: Prometheus, shared_taffrail) -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    documented = set(re.findall(r"`(taffrail_\w+)", page))
    # "`taffrail_a_…`, `taffrail_b_…`: `steps{step}`, `failures_total`" stands for four names.
    for prefixes, ends in re.findall(r"^\| (`taffrail_\w+_…`[^:|]*): ([^|]*)", page, re.MULTILINE):
        for prefix in re.findall(r"(taffrail_\w+_)…", prefixes):
            documented |= {prefix + end for end in re.findall(r"`(\w+)", ends)}
    names = set(re.findall(r"^(taffrail_\w+)", shared_taffrail.get("/metrics"), re.MULTILINE))
    assert len(names) > 20
    assert names - documented == set()


def test_known_loads_have_their_numbers(prometheus: Prometheus, shared_taffrail, eventually) -> None:
    busy = 'rate(container_cpu_usage_seconds_total{name="burner"}[1m])'
    eventually(
        lambda: prometheus.query('count_over_time(container_last_seen{name="burner"}[1m]) >= 15'),
        "15 scrapes",
    )
    # It may have a tenth of a CPU; a busy host gives it less.
    assert 0 < prometheus.value(busy) < 0.15
    pid = shared_taffrail.docker("inspect", "-f", "{{.State.Pid}}", "burner").strip()
    before = cpu_seconds(pid)
    eventually(
        lambda: prometheus.value('container_cpu_usage_seconds_total{name="burner"}') >= before,
        "a scrape from now on",
    )
    seen = prometheus.value('container_cpu_usage_seconds_total{name="burner"}')
    assert before <= seen <= cpu_seconds(pid) + 2  # the processes that started it
    periods = 'rate(container_cpu_cfs_{}periods_total{{name="burner"}}[1m])'
    throttled = f"{periods.format('throttled_')} / {periods.format('')}"
    eventually(lambda: prometheus.query(f"{throttled} > 0 <= 1"), "periods that were throttled")
    # A period that was throttled has used all of its 10 ms.
    used = f"sum({busy}) / sum({periods.format('throttled_')})"
    eventually(lambda: prometheus.query(f"{used} >= 0.009"), "10 ms in each")
    assert prometheus.value('container_spec_memory_limit_bytes{name="writer"}') == 64 * 1024 * 1024
    usage = prometheus.value('avg(container_memory_usage_bytes{name="writer"})')
    assert 0 < usage <= 64 * 1024 * 1024
    both, one = (
        f"sum(container_memory_usage_bytes{{{of}}})" for of in ('image="test/busybox:1"', 'name="writer"')
    )
    assert prometheus.value(f"{both} - {one}") > 0
    lines = 'taffrail_log_written_lines_total{name="writer"}'
    before = shared_taffrail.docker("logs", "writer").count("\n")
    eventually(lambda: prometheus.value(lines) >= before, "as many lines as it has written")
    assert 0 < prometheus.value(lines) <= shared_taffrail.docker("logs", "writer").count("\n")
    assert not prometheus.query('container_network_receive_bytes_total{name="burner",interface="lo"}')


def test_a_container_that_ends_leaves_its_last_numbers_and_its_exit_code(
    prometheus: Prometheus, shared_taffrail, eventually, image
) -> None:
    shared_taffrail.docker(
        "run",
        "--name",
        "short",
        image,
        "sh",
        "-c",
        "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; exit 7",
        check=False,
    )
    eventually(lambda: prometheus.query('container_exit_code{name="short"} == 7'), "the exit code")
    assert prometheus.value('container_cpu_usage_seconds_total{name="short"}') > 0
    assert not prometheus.query('container_memory_usage_bytes{name="short"}')
