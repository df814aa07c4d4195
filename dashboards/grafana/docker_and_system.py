"""The dashboard "Docker and system monitoring": the upper half a host, the lower half its containers.

Host series are cAdvisor's ``id="/"`` and ``machine_*``, so the dashboard also works on a cAdvisor; one row
is Node Exporter's ``node_*``.
Run as a module it rewrites ``docker-and-system.json`` beside it.
"""

from __future__ import annotations

from pathlib import Path

import orjson

from dashboards.grafana.model import Dashboard, Panel, Row, Target, Variable, render

__all__ = ["DASHBOARD", "FILE", "text"]

FILE = Path(__file__).with_name("docker-and-system.json")

_HOST = 'instance=~"$host"'
_ROOT = f'id="/",{_HOST}'
_BUSY = f'mode!="idle",{_HOST}'
_ONE = f'name=~"$container",name!="",{_HOST}'
_WARN = ((None, "green"), (0.75, "orange"), (0.9, "red"))


def _host(title: str, unit: str, expr: str, **options: object) -> Panel:
    return Panel(title, unit, (Target(expr, "{{instance}}"),), **options)  # type: ignore[arg-type]


def _each(title: str, unit: str, expr: str, **options: object) -> Panel:
    return Panel(title, unit, (Target(expr),), **options)  # type: ignore[arg-type]


def _rate(metric: str, labels: str) -> str:
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def _by_name(expr: str) -> str:
    return f"sum by (instance, name) ({expr})"


_HOST_ROWS = (
    Row(
        "Host",
        (
            _host("Containers", "short", f'count by (instance) (container_last_seen{{name!="",{_HOST}}})',
                  kind="stat", width=4, height=4),
            _host("Cores", "short", f"machine_cpu_cores{{{_HOST}}}", kind="stat", width=4, height=4),
            _host("Memory", "bytes", f"machine_memory_bytes{{{_HOST}}}", kind="stat", width=4, height=4),
            _host("CPU", "percentunit",
                  f"sum by (instance) ({_rate('container_cpu_usage_seconds_total', _ROOT)})"
                  f" / on (instance) machine_cpu_cores{{{_HOST}}}",
                  kind="gauge", width=4, height=4, thresholds=_WARN),
            _host("Memory used", "percentunit",
                  f"sum by (instance) (container_memory_working_set_bytes{{{_ROOT}}})"
                  f" / on (instance) machine_memory_bytes{{{_HOST}}}",
                  kind="gauge", width=4, height=4, thresholds=_WARN),
            _host("Out-of-memory kills, 1 h", "short",
                  f"sum by (instance) (increase(container_oom_events_total{{{_HOST}}}[1h]))",
                  kind="stat", width=4, height=4, thresholds=((None, "green"), (1, "red"))),
            _host("CPU used", "short", f"sum by (instance) ({_rate('container_cpu_usage_seconds_total', _ROOT)})",
                  description="cores busy on the whole host"),
            _host("Memory working set", "bytes", f"container_memory_working_set_bytes{{{_ROOT}}}"),
            Panel("Network", "Bps", (
                Target(f"sum by (instance) ({_rate('container_network_receive_bytes_total', _ROOT)})",
                       "{{instance}} received"),
                Target(f"sum by (instance) ({_rate('container_network_transmit_bytes_total', _ROOT)})",
                       "{{instance}} sent"),
            )),
            Panel("Filesystems", "percentunit", (
                Target(f"container_fs_usage_bytes{{{_ROOT}}} / container_fs_limit_bytes{{{_ROOT}}}",
                       "{{instance}} {{device}}"),
            ), thresholds=_WARN),
        ),
    ),
    Row(
        "Host in detail",
        (
            Panel("CPU by mode", "short", (
                Target(f"sum by (instance, mode) ({_rate('node_cpu_seconds_total', _BUSY)})",
                       "{{instance}} {{mode}}"),
            ), description="cores in each mode but idle"),
            Panel("Pressure", "percentunit", tuple(
                Target(_rate(f"node_pressure_{what}_waiting_seconds_total", _HOST), f"{{{{instance}}}} {what}")
                for what in ("cpu", "memory", "io")
            ), description="share of the time in which some task waited"),
            Panel("Disks", "percentunit", (
                Target(_rate("node_disk_io_time_seconds_total", _HOST), "{{instance}} {{device}}"),
            ), description="share of the time with requests in flight"),
            Panel("Mounted file systems", "percentunit", (
                Target(f"1 - node_filesystem_avail_bytes{{{_HOST}}} / node_filesystem_size_bytes{{{_HOST}}}",
                       "{{instance}} {{mountpoint}}"),
            ), thresholds=_WARN),
            Panel("TCP", "short", (
                Target(_rate("node_netstat_Tcp_RetransSegs", _HOST), "{{instance}} sent again"),
                Target(_rate("node_netstat_TcpExt_ListenDrops", _HOST), "{{instance}} not accepted"),
            ), description="segments and connections a second"),
            Panel("Load", "short", (
                Target(f"node_load1{{{_HOST}}}", "{{instance}} 1 min"),
                Target(f"node_load15{{{_HOST}}}", "{{instance}} 15 min"),
            )),
        ),
    ),
)  # fmt: skip

_CONTAINER_ROWS = (
    Row(
        "Containers",
        (
            _each("CPU", "short", _by_name(_rate("container_cpu_usage_seconds_total", _ONE)), description="cores busy"),
            _each("Memory working set", "bytes", _by_name(f"container_memory_working_set_bytes{{{_ONE}}}")),
            _each("Memory, anonymous", "bytes", _by_name(f"container_memory_rss{{{_ONE}}}")),
            _each("Memory, page cache", "bytes", _by_name(f"container_memory_cache{{{_ONE}}}")),
            _each("Network received", "Bps", _by_name(_rate("container_network_receive_bytes_total", _ONE))),
            _each("Network sent", "Bps", _by_name(_rate("container_network_transmit_bytes_total", _ONE))),
            _each("Read from disk", "Bps", _by_name(_rate("container_fs_reads_bytes_total", _ONE))),
            _each("Written to disk", "Bps", _by_name(_rate("container_fs_writes_bytes_total", _ONE))),
            _each("Throttled periods", "percentunit",
                  f"{_by_name(_rate('container_cpu_cfs_throttled_periods_total', _ONE))}"
                  f" / {_by_name(_rate('container_cpu_cfs_periods_total', _ONE))}",
                  description="share of the CPU periods in which a container with a CPU limit was held back"),
            _each("Restarts, 1 h", "short", _by_name(f"increase(container_restarts_total{{{_ONE}}}[1h])")),
        ),
    ),
    Row(
        "Logs",
        (
            _each("Lines written", "short", _by_name(_rate("taffrail_log_written_lines_total", _ONE)),
                  description="lines a second, by container"),
            _each("Lines not yet delivered", "short", _by_name(f"taffrail_log_held_lines{{{_ONE}}}"),
                  description="on disk, waiting for the driver's sink"),
        ),
    ),
)  # fmt: skip

DASHBOARD = Dashboard(
    uid="taffrail-docker-system",
    title="Docker and system monitoring",
    variables=(
        Variable("host", "Host", "label_values(machine_cpu_cores, instance)"),
        Variable(
            "container", "Container", 'label_values(container_last_seen{instance=~"$host",name!=""}, name)'
        ),
    ),
    rows=(*_HOST_ROWS, *_CONTAINER_ROWS),
)


def text() -> bytes:
    """The JSON that is kept in the file."""
    return orjson.dumps(render(DASHBOARD), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


if __name__ == "__main__":
    FILE.write_bytes(text())
