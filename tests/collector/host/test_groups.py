"""Groups of host counters: what is parsed, on text, and what cannot be had from files alone."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from collector.host.collection import ALL, HostGroups, choose
from collector.host.group import Absent, Files, Labels, Readings
from collector.host.groups import BUILTIN
from collector.host.groups.cpu import cpu, cpufreq, parse_cpu_times
from collector.host.groups.diskstats import parse_diskstats
from collector.host.groups.filesystem import filesystem, parse_mounts
from collector.host.groups.kernel import parse_loadavg, parse_os_release, parse_pressure, pressure
from collector.host.groups.memory import parse_meminfo, parse_vmstat
from collector.host.groups.network import (
    parse_conntrack,
    parse_netstat,
    parse_snmp6,
    parse_softnet,
    udp_queues,
)
from collector.host.groups.raid import Array, parse_mdstat
from collector.host.groups.sensors import sensor_value
from collector.host.probe import Probe
from collector.roots import Roots


def values(readings: Readings) -> dict[str, dict[Labels, float]]:
    return {name: dict(series) for name, series in readings.items()}


def test_a_choice_of_groups() -> None:
    assert choose([ALL]) == tuple(BUILTIN)
    assert choose(["stat", "cpu"]) == ("cpu", "stat")
    assert choose(["-cpu"]) == choose([ALL, "-cpu"]) == tuple(name for name in BUILTIN if name != "cpu")
    assert choose([]) == choose([ALL, "-all"]) == ()
    with pytest.raises(ValueError, match="known are all, arp"):
        choose(["zzzzz"])


def test_cpu_times_never_go_back_unless_the_cpu_was_taken_out(tmp_path: Path) -> None:
    stat, info = tmp_path / "stat", tmp_path / "cpuinfo"
    info.write_text("processor : 0\n")
    read = cpu(files := Files(Roots(tmp_path, tmp_path, tmp_path)))

    def seconds(text: str) -> dict[Labels, float]:
        stat.write_text(f"cpu  1\ncpu0 {text}\nintr 0\n")
        files.begin()
        return values(read())["node_cpu_seconds_total"]

    assert seconds("100 0 0 100000 500 0 0 0 7 0")["0", "iowait"] == 5
    assert seconds("200 0 0 100010 450 0 0 0 7 0")["0", "iowait"] == 5
    assert seconds("200 0 0 100010 450 0 0 0 7 0")["0", "user"] == 2
    assert seconds("10 0 0 20 4 0 0 0 0 0")["0", "idle"] == 0.2


def test_frequencies_and_governors_of_the_cpus_that_have_them(tmp_path: Path) -> None:
    for name in ("cpu0", "cpu10", "cpuidle"):
        (tmp_path / "devices/system/cpu" / name).mkdir(parents=True)
    of_cpu = tmp_path / "devices/system/cpu/cpu10/cpufreq"
    of_cpu.mkdir()
    for name, text in {
        "scaling_cur_freq": "1200000",
        "cpuinfo_max_freq": "3400000",
        "cpuinfo_cur_freq": "<unknown>",
        "scaling_governor": "powersave",
        "scaling_available_governors": "performance powersave",
    }.items():
        (of_cpu / name).write_text(f"{text}\n")
    assert values(cpufreq(Files(Roots(tmp_path, tmp_path, tmp_path)))) == {
        "node_cpu_frequency_max_hertz": {("10",): 3_400_000_000},
        "node_cpu_scaling_frequency_hertz": {("10",): 1_200_000_000},
        "node_cpu_scaling_governor": {("10", "performance"): 0, ("10", "powersave"): 1},
    }


def test_old_kernels_have_fewer_columns() -> None:
    assert parse_cpu_times(b"cpu  1 2\ncpu0 1 2 3 4 5 6 7\nintr 1\n") == {"0": [1, 2, 3, 4, 5, 6, 7, 0, 0, 0]}
    with pytest.raises(ValueError, match="expected a line for each cpu"):
        parse_cpu_times(b"")
    readings, devices = parse_diskstats(
        b"8 0 sda 1 2 3 4 5 6 7 8 9 10 11\n7 0 loop0 1 2 3 4 5 6 7 8 9 10 11\n"
    )
    assert devices == [("8", "0", "sda")]
    assert readings["node_disk_read_bytes_total"] == [(("sda",), 1536)]
    assert readings["node_disk_discards_completed_total"] == []
    with pytest.raises(ValueError, match="expected 14 fields"):
        parse_diskstats(b"8 0 sda 1\n")


def test_memory_fields_by_their_units() -> None:
    assert values(parse_meminfo(b"Active(anon):  2 kB\nHugePages_Total:  3\nMemTotal: 4 kB\n")) == {
        "node_memory_Active_anon_bytes": {(): 2048},
        "node_memory_HugePages_Total": {(): 3},
        "node_memory_MemTotal_bytes": {(): 4096},
    }
    with pytest.raises(ValueError, match="MemTotal"):
        parse_meminfo(b"nothing")
    text = b"nr_free_pages 1\noom_kill 2\npgfault 3\npgmajfault 4\npgpgin 5\npswpout 6\npgactivate 7\n"
    chosen = ["oom_kill", "pgfault", "pgmajfault", "pgpgin", "pswpout"]
    assert [name[12:] for name in parse_vmstat(text)] == chosen


def test_protocol_counters_are_the_chosen_ones() -> None:
    text = b"Tcp: RtoMin CurrEstab InErrs\nTcp: 200 5 6\nUdp: InDatagrams NoPorts\nUdp: 7 8\n"
    assert values(parse_netstat(text)) == {
        "node_netstat_Tcp_CurrEstab": {(): 5},
        "node_netstat_Tcp_InErrs": {(): 6},
        "node_netstat_Udp_InDatagrams": {(): 7},
        "node_netstat_Udp_NoPorts": {(): 8},
    }
    text = b"Ip6InReceives   \t1\nIp6InOctets     \t2\nUdpLite6InErrors\t3\nIp6OutOctets 4\n"
    assert values(parse_snmp6(text.replace(b"\t", b" "))) == {
        "node_netstat_Ip6_InOctets": {(): 2},
        "node_netstat_UdpLite6_InErrors": {(): 3},
        "node_netstat_Ip6_OutOctets": {(): 4},
    }
    assert values(parse_conntrack(b"entries found drop\n0a 01 02\n0a 10 20\n")) == {
        "node_nf_conntrack_stat_found": {(): 0x11},
        "node_nf_conntrack_stat_drop": {(): 0x22},
    }


def test_packet_queues_are_the_cpus_that_are_online() -> None:
    new = b"0a 1 2 0 0 0 0 0 0 0 0 0 00000003 0 0\n"
    assert values(parse_softnet(new))["node_softnet_processed_total"] == {("3",): 10}
    assert values(parse_softnet(b"0b 1 2 0 0 0 0 0 0\n"))["node_softnet_dropped_total"] == {("0",): 1}


def test_queues_of_more_udp_sockets_than_a_page_has_room_for() -> None:
    files = Files(Roots())
    files.net = "/proc/self/net"
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            receiver = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            receiver.bind(("127.0.0.1", 0))
            receiver.sendto(bytes(1000), receiver.getsockname())
        queues = values(udp_queues(files))["node_udp_queues"]
    assert queues["rx", "v4"] >= 300 * 1000


def test_pressure_that_is_switched_off_is_absent(tmp_path: Path) -> None:
    text = b"some avg10=0.00 avg60=0.00 avg300=0.00 total=2000000\nfull avg10=0.00 total=500000\n"
    assert list(parse_pressure("cpu", text)) == ["node_pressure_cpu_waiting_seconds_total"]
    assert values(parse_pressure("io", text))["node_pressure_io_stalled_seconds_total"] == {(): 0.5}
    with pytest.raises(Absent):
        pressure(Files(Roots(tmp_path, tmp_path, tmp_path)))
    with pytest.raises(ValueError, match="three load averages"):
        parse_loadavg(b"0.1\n")


def test_os_release_values_lose_their_quotes() -> None:
    text = 'NAME=\'A B\'\n#X=1\nID=debian\nPRETTY_NAME="say \\"hi\\""\n\nbroken\n'
    assert parse_os_release(text) == {"name": "A B", "id": "debian", "pretty_name": 'say "hi"'}


@pytest.mark.parametrize(
    ("text", "array"),
    [
        (
            "md0 : active raid1 sdb1[1] sda1[0]\n      248896 blocks [2/2] [UU]\n",
            Array("md0", "active", 2, 2, 0, 0, 248896, 248896),
        ),
        (
            "md6 : active raid1 sdb2[2](F) sdc[1](S) sda2[0]\n      195310144 blocks [2/1] [U_]\n"
            "      [=>....]  recovery =  8.5% (16775552/195310144) finish=17.0min speed=259783K/sec\n",
            Array("md6", "recovering", 1, 2, 1, 1, 195310144, 16775552),
        ),
        (
            "md9 : active (auto-read-only) raid1 sda2[0] sdb2[1]\n      100 blocks [2/2] [UU]\n\tresync=PENDING\n",
            Array("md9", "resync", 2, 2, 0, 0, 100, 0),
        ),
        (
            "md1 : active raid0 sda[0] sdb[1]\n      300 blocks super 1.2 512k chunks\n",
            Array("md1", "active", 2, 2, 0, 0, 300, 300),
        ),
        ("md4 : inactive sda[0](F) sdb[1](S)\n      7 blocks\n", Array("md4", "inactive", 0, 0, 1, 1, 7, 7)),
    ],
)
def test_software_raid(text: str, array: Array) -> None:
    text = f"Personalities : [raid1]\n{text}\nunused devices: <none>\n"
    assert parse_mdstat(text) == [array]


@pytest.mark.parametrize(
    ("kind", "element", "number", "expected"),
    [
        ("temp", "input", 55000, ("node_hwmon_temp_celsius", 55)),
        ("temp", "crit_alarm", 0, ("node_hwmon_temp_crit_alarm_celsius", 0)),
        ("temp", "type", 4, ("node_hwmon_temp_type", 4)),
        ("temp", "fault", 1, ("node_hwmon_temp_fault", 1)),
        ("temp", "beep", 1, ("node_hwmon_temp_beep_enabled", 1)),
        ("in", "min", 1234, ("node_hwmon_in_min_volts", 1.234)),
        ("fan", "input", 1200, ("node_hwmon_fan_rpm", 1200)),
        ("fan", "div", 8, ("node_hwmon_fan_div", 8)),
        ("power", "average_interval", 1000, ("node_hwmon_power_average_interval_seconds", 1)),
        ("power", "accuracy", 50000, ("node_hwmon_power_accuracy", 0.05)),
        ("power", "average", 5002000, ("node_hwmon_power_average_watt", 5.002)),
        ("energy", "input", 1000000, ("node_hwmon_energy_joule_total", 1)),
        ("update_interval", "", 2000, ("node_hwmon_update_interval_seconds", 2)),
        ("pwm", "", 128, ("node_hwmon_pwm", 128)),
    ],
)
def test_sensors_have_units(kind: str, element: str, number: float, expected: tuple[str, float]) -> None:
    assert sensor_value(kind, element, number) == expected


def test_a_sensor_with_a_file_of_its_own_name_keeps_input_in_the_other() -> None:
    assert sensor_value("temp", "input", 1000, has_plain=True) == ("node_hwmon_temp_input_celsius", 1)


def test_mounts_that_are_not_counted() -> None:
    mounts = parse_mounts(
        b"/dev/vda / ext4 rw,relatime 0 0\nproc /proc proc rw 0 0\ntmpfs /run tmpfs rw 0 0\n"
        b"tmpfs /dev/shm tmpfs rw 0 0\noverlay /merged overlay rw 0 0\n"
        b"/dev/vdb /mnt/with\\040space xfs ro,relatime 0 0\n"
        b"tmpfs /run/credentials/x.service tmpfs rw 0 0\n/dev/vda / ext4 ro 0 0\n"
        b"/dev/vda /var/lib/docker/plugins ext4 rw 0 0\n"
    )
    assert [(mount.point, mount.read_only) for mount in mounts] == [
        ("/", False),
        ("/run", False),
        ("/mnt/with space", True),
    ]


def test_a_mounted_file_system_has_the_numbers_of_statvfs_and_its_mode(tmp_path: Path) -> None:
    point = Path(tempfile.mkdtemp(dir=tmp_path, prefix="with space "))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=50,ro", "host-test", point], check=True)
    try:
        (tmp_path / "self").mkdir()
        (tmp_path / "self/mounts").write_bytes(Path("/proc/self/mounts").read_bytes())
        read = filesystem(Files(Roots(tmp_path, Path("/sys"), Path("/"))))
        found = {
            name[16:]: value
            for name, series in read().items()
            for labels, value in series
            if labels == ("host-test", str(point), "tmpfs")
        }
    finally:
        subprocess.run(["umount", point], check=True)
    assert found == {
        "size_bytes": 1 << 20,
        "free_bytes": 1 << 20,
        "avail_bytes": 1 << 20,
        "files": 50,
        "files_free": 49,
        "readonly": 1,
        "device_error": 0,
    }


def test_a_mount_that_comes_and_goes_is_seen(tmp_path: Path) -> None:
    files = Files(Roots())
    read = filesystem(files)

    def mounted() -> bool:
        files.begin()
        return any(labels[1] == str(tmp_path) for labels, _ in read()["node_filesystem_readonly"])

    assert not mounted()
    subprocess.run(["mount", "-t", "tmpfs", "x", str(tmp_path)], check=True)
    try:
        assert mounted()
        assert mounted()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert not mounted()


def test_a_file_system_that_cannot_be_asked_has_an_error_and_no_sizes(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1/mounts").write_text("server:/x /gone nfs rw 0 0\n")

    def refuse(path: str) -> os.statvfs_result:
        raise OSError(5, "Input/output error", path)

    found = values(filesystem(Files(Roots(tmp_path, tmp_path, tmp_path)), Probe(refuse))())
    labels = ("server:/x", "/gone", "nfs")
    assert found["node_filesystem_device_error"] == {labels: 1}
    assert found["node_filesystem_readonly"] == {labels: 0}
    assert found["node_filesystem_size_bytes"] == {}


def test_the_agents_own_host_is_read_without_a_failure() -> None:
    groups = HostGroups()
    collected = groups.read()
    assert groups.failures == {}
    assert {group.group for group in collected if group.success} >= {
        "cpu",
        "meminfo",
        "netdev",
        "filesystem",
        "stat",
    }
