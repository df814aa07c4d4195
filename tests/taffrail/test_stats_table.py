import re

import orjson

from taffrail.stats_table import json_lines, live_frame, table

ROW: dict[str, object] = {
    "id": "0123456789abcdef" * 4,
    "name": "web",
    "time_ns": 1,
    "cpu_percent": 50.123,
    "memory_usage_bytes": 539_282_637,
    "memory_limit_bytes": 1_912_602_624,
    "memory_percent": 28.2,
    "net_rx_bytes": 1248,
    "net_tx_bytes": 656,
    "block_read_bytes": 0,
    "block_write_bytes": 12_300_000,
    "pids": 3,
}


def test_the_table_has_docker_stats_columns_with_the_name_first() -> None:
    heading, line = table([ROW]).splitlines()
    assert heading.split("   ")[0] == "NAME"
    assert re.split(" {3,}", line) == [
        "web", "0123456789ab", "50.12%", "514.3MiB / 1.781GiB", "28.20%", "1.25kB / 656B", "0B / 12.3MB", "3",
    ]  # fmt: skip


def test_a_container_without_a_sample_has_dashes() -> None:
    line = table([{"id": "f" * 64, "name": "late", "time_ns": 0}]).splitlines()[1]
    assert line.split() == [
        "late",
        "ffffffffffff",
        "--",
        "--",
        "/",
        "--",
        "--",
        "--",
        "/",
        "--",
        "--",
        "/",
        "--",
        "--",
    ]


def test_a_live_frame_leaves_nothing_of_the_one_before() -> None:
    frame = live_frame([ROW])
    assert frame.startswith("\x1b[H")
    assert frame.endswith("\x1b[J")
    assert frame.count("\x1b[K\n") == 2


def test_json_has_dockers_keys_and_the_unrounded_numbers() -> None:
    row = orjson.loads(json_lines([ROW]))
    assert row["CPUPerc"] == "50.12%"
    assert row["MemUsage"] == "514.3MiB / 1.781GiB"
    assert row["cpu_percent"] == 50.123
