"""CPU time, what the CPUs are, their frequencies, throttling and run queues.

Sources of the formats: proc_stat(5), proc_cpuinfo(5), the kernel's Documentation/scheduler/sched-stats.rst,
admin-guide/pm/cpufreq.rst.
"""

from __future__ import annotations

import os

from collector.host.group import Absent, Files, Labels, Reader, Readings, Series

__all__ = ["cpu", "cpufreq", "parse_cpu_info", "parse_cpu_times", "parse_schedstat", "schedstat"]

_HERTZ = os.sysconf("SC_CLK_TCK")
_MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
_IDLE = _MODES.index("idle")
_GUEST = ("user", "nice")
#: A CPU whose idle time went back by more than this was taken out and in again, and counts anew.
_ANEW_TICKS = 3 * _HERTZ
_INFO = (
    ("physical id", "package"),
    ("core id", "core"),
    ("processor", "cpu"),
    ("vendor_id", "vendor"),
    ("cpu family", "family"),
    ("model", "model"),
    ("model name", "model_name"),
    ("microcode", "microcode"),
    ("stepping", "stepping"),
    ("cache size", "cachesize"),
)


def parse_cpu_times(data: bytes) -> dict[str, list[int]]:
    """CPU number to its ticks in ``/proc/stat``, guest times last. Raises ValueError without any CPU."""
    times = {}
    for line in data.split(b"\nintr", 1)[0].splitlines():
        if line.startswith(b"cpu") and line[3:4] != b" ":
            name, *words = line.split()
            ticks = list(map(int, words[:10]))
            times[name[3:].decode()] = ticks + [0] * (10 - len(ticks))
    if not times:
        raise ValueError(f"{data[:40]!r}: expected a line for each cpu")
    return times


def parse_cpu_info(data: bytes) -> list[Labels]:
    """What ``/proc/cpuinfo`` says of each CPU: package, core, cpu, vendor, family, model and so on."""
    found = []
    for block in data.decode(errors="replace").split("\n\n"):
        fields = {}
        for line in block.splitlines():
            key, _, value = line.partition(":")
            fields[key.strip()] = value.strip()
        if "processor" in fields:
            found.append(tuple(fields.get(key, "") for key, _ in _INFO))
    return found


def cpu(files: Files) -> Reader:
    """Node Exporter's ``cpu``, with its information on the CPUs."""
    state = _CpuTimes()
    directory = f"{files.sys}/devices/system/cpu"

    def read() -> Readings:
        times = state.take(parse_cpu_times(files.read(f"{files.proc}/stat")))
        if len(state.info) != len(times):  # once, and when a CPU comes or goes: the file is slow to make
            state.info = parse_cpu_info(files.read_now(f"{files.proc}/cpuinfo"))
            state.throttled = _throttle_files(files, directory)
        seconds: Series = []
        guest: Series = []
        for name, ticks in times.items():
            seconds += [((name, mode), tick / _HERTZ) for mode, tick in zip(_MODES, ticks, strict=False)]
            guest += [((name, mode), tick / _HERTZ) for mode, tick in zip(_GUEST, ticks[8:], strict=False)]
        readings: Readings = {
            "node_cpu_seconds_total": seconds,
            "node_cpu_guest_seconds_total": guest,
            "node_cpu_info": [(labels, 1) for labels in state.info],
        }
        for family, labels, path in state.throttled:
            value = files.number(path)
            if value is not None:
                readings.setdefault(family, []).append((labels, value))
        return readings

    return read


class _CpuTimes:
    """Ticks that never go back, which the kernel's iowait sometimes does."""

    def __init__(self) -> None:
        self.info: list[Labels] = []
        self.throttled: list[tuple[str, Labels, str]] = []
        self._last: dict[str, list[int]] = {}

    def take(self, times: dict[str, list[int]]) -> dict[str, list[int]]:
        for name, ticks in times.items():
            last = self._last.get(name)
            if last is not None and ticks[_IDLE] > last[_IDLE] - _ANEW_TICKS:
                times[name] = list(map(max, last, ticks))
        self._last = times
        return times


def _throttle_files(files: Files, directory: str) -> list[tuple[str, Labels, str]]:
    """Family, labels and file of each core's and each package's count of throttling."""
    found: dict[tuple[str, Labels], str] = {}
    for name in files.some_names(directory, r"cpu\d+"):
        package = files.text(f"{directory}/{name}/topology/physical_package_id") or ""
        core = files.text(f"{directory}/{name}/topology/core_id") or ""
        path = f"{directory}/{name}/thermal_throttle"
        of_kinds: tuple[tuple[str, Labels], ...] = (("core", (package, core)), ("package", (package,)))
        for kind, labels in of_kinds:
            if files.number(f"{path}/{kind}_throttle_count") is not None:
                key = (f"node_cpu_{kind}_throttles_total", labels)
                found.setdefault(key, f"{path}/{kind}_throttle_count")
    return [(family, labels, path) for (family, labels), path in found.items()]


_GOVERNORS = ("scaling_governor", "scaling_available_governors")
_FREQUENCIES = {
    "cpuinfo_cur_freq": "node_cpu_frequency_hertz",
    "cpuinfo_min_freq": "node_cpu_frequency_min_hertz",
    "cpuinfo_max_freq": "node_cpu_frequency_max_hertz",
    "scaling_cur_freq": "node_cpu_scaling_frequency_hertz",
    "scaling_min_freq": "node_cpu_scaling_frequency_min_hertz",
    "scaling_max_freq": "node_cpu_scaling_frequency_max_hertz",
}


def cpufreq(files: Files) -> Readings:
    """Node Exporter's ``cpufreq``: frequencies in hertz, which sysfs has in kilohertz, and the governor."""
    directory = f"{files.sys}/devices/system/cpu"
    readings: Readings = {}
    for name in files.names(directory, r"cpu\d+"):
        values = files.attributes(f"{directory}/{name}/cpufreq", (*_GOVERNORS, *_FREQUENCIES))
        if not values:
            continue  # a virtual machine's
        for value, family in zip(values[len(_GOVERNORS) :], _FREQUENCIES.values(), strict=True):
            if value is not None and value.strip().isdigit():  # it may be <unknown>
                readings.setdefault(family, []).append(((name[3:],), int(value) * 1000))
        chosen, known = ((value or b"").decode(errors="replace").strip() for value in values[:2])
        for governor in known.split():
            readings.setdefault("node_cpu_scaling_governor", []).append(
                ((name[3:], governor), int(governor == chosen))
            )
    return readings


def parse_schedstat(data: bytes) -> Readings:
    """``/proc/schedstat``: time run and waited (nanoseconds there, seconds here) and timeslices of each CPU."""
    running: Series = []
    waiting: Series = []
    slices: Series = []
    for line in data.splitlines():
        if line.startswith(b"cpu"):
            words = line.split()
            label = (words[0][3:].decode(),)
            running.append((label, int(words[7]) / 1e9))
            waiting.append((label, int(words[8]) / 1e9))
            slices.append((label, int(words[9])))
    return {
        "node_schedstat_running_seconds_total": running,
        "node_schedstat_waiting_seconds_total": waiting,
        "node_schedstat_timeslices_total": slices,
    }


def schedstat(files: Files) -> Readings:
    """Node Exporter's ``schedstat``. Raises Absent on a kernel without it."""
    readings = parse_schedstat(files.required(f"{files.proc}/schedstat"))
    if not readings["node_schedstat_timeslices_total"]:
        raise Absent("schedstat has no cpu")
    return readings
