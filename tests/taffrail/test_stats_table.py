import csv
import re

import orjson

from taffrail.live_screen import fit
from taffrail.stats_table import CSV_COLUMNS, csv_lines, json_lines, table_lines

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
    heading, line = table_lines([ROW])
    assert heading.split("   ")[0] == "NAME"
    assert re.split(" {3,}", line) == [
        "web", "0123456789ab", "50.12%", "514.3MiB / 1.781GiB", "28.20%", "1.25kB / 656B", "0B / 12.3MB", "3",
    ]  # fmt: skip


def test_a_container_without_a_sample_has_dashes() -> None:
    line = table_lines([{"id": "f" * 64, "name": "late", "time_ns": 0}])[1]
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


def test_what_nobody_counts_has_dashes_and_is_null_and_empty() -> None:
    row = {**ROW, "cpu_percent": None, "pids": None, "memory_percent": None, "memory_limit_bytes": None}
    assert re.split(" {3,}", table_lines([row])[1])[2:5] == ["--", "514.3MiB / --", "--"]
    assert table_lines([row])[1].endswith("--")
    found = orjson.loads(json_lines([row]))
    assert (found["cpu_percent"], found["pids"], found["CPUPerc"], found["PIDs"]) == (None, None, "--", "--")
    heading, line = csv.reader(csv_lines([row], heading=True).splitlines())
    assert dict(zip(heading, line, strict=True))["pids"] == ""


def test_the_host_stands_first_where_there_are_several() -> None:
    lines = table_lines([{**ROW, "host": "alpha"}, {**ROW, "host": "be\x1b[2Jta"}], with_host=True)
    assert [line.split()[0] for line in lines] == ["HOST", "alpha", "be\\x1b[2Jta"]


def test_csv_has_a_heading_once_and_nothing_where_there_is_no_sample() -> None:
    full = {**ROW, "host": "alpha", "image": 'a,"b"'}
    late = {"id": "f" * 64, "name": "late", "time_ns": 0, "cpu_percent": 0.0, "host": "alpha"}
    heading, *rows = csv.reader(csv_lines([full, late], heading=True).splitlines())
    assert tuple(heading) == CSV_COLUMNS
    first, second = (dict(zip(heading, row, strict=True)) for row in rows)
    assert (first["image"], first["cpu_percent"], first["block_write_bytes"]) == (
        'a,"b"',
        "50.123",
        "12300000",
    )
    assert (second["name"], second["cpu_percent"], second["time_ns"]) == ("late", "", "")
    assert len(csv_lines([full], heading=False).splitlines()) == 1


def test_a_screen_holds_what_fits_and_counts_the_rest() -> None:
    lines = ["heading", *(f"row {n}" for n in range(10))]
    assert fit(lines, [], 80, 24) == lines
    assert fit(lines, [], 5, 24) == ["headi", *(f"row {n}" for n in range(10))]
    assert fit(lines, ["an error"], 80, 6) == ["heading", "row 0", "row 1", "… 8 more", "an error"]
    assert fit(lines, ["one", "two"], 80, 2) == ["… 11 more"]


def test_json_has_dockers_keys_and_the_unrounded_numbers() -> None:
    row = orjson.loads(json_lines([ROW]))
    assert row["CPUPerc"] == "50.12%"
    assert row["MemUsage"] == "514.3MiB / 1.781GiB"
    assert row["cpu_percent"] == 50.123
