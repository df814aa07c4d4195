"""What containers of known size take on disk, through our engine and at ``/metrics``."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

MIB = 1 << 20
BLOCK = 4096


@pytest.fixture(scope="module")
def watched(make_taffrail: Any, image: str) -> Iterator[Any]:
    taffrail = make_taffrail()
    taffrail.settings.append("collector.group_intervals.disk=1s")
    taffrail.up()
    taffrail.import_image(image)
    yield taffrail
    taffrail.docker("rm", "-f", "layer", "volume", "log", check=False)


def write(taffrail: Any, name: str, path: str, mebibytes: int) -> None:
    taffrail.docker(
        "exec", name, "sh", "-c", f"dd if=/dev/urandom of={path} bs=1M count={mebibytes} 2>&1 && sync"
    )


def value(taffrail: Any, family: str, *labels: str) -> float | None:
    found = taffrail.metrics().values(family, *labels)
    assert len(found) < 2
    return found[0] if found else None


def test_a_container_that_writes_ten_megabytes_into_its_layer(
    watched: Any, image: str, eventually: Any
) -> None:
    family, label = "container_fs_usage_bytes", 'name="layer"'
    watched.docker("run", "-d", "--name", "layer", image, "sleep", "600")
    eventually(lambda: value(watched, family, label) is not None, "the layer's size")
    before = value(watched, family, label)
    assert before is not None
    assert before < MIB
    write(watched, "layer", "/ten", 10)
    eventually(lambda: (value(watched, family, label) or 0) >= 10 * MIB, "the ten megabytes")
    after = value(watched, family, label)
    assert after is not None
    # The file system may need some blocks more for the name and for where the others are.
    assert 10 * MIB <= after - before <= 10 * MIB + 16 * BLOCK
    device = subprocess.run(
        ["findmnt", "-no", "SOURCE", "-T", watched.root], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert value(watched, family, label, f'device="{device}"') == after
    limit = value(watched, "container_fs_limit_bytes", label)
    size = subprocess.run(
        ["df", "-B1", "--output=size", watched.root], capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    assert limit == float(size)
    inodes = value(watched, "container_fs_inodes_total", label)
    free = value(watched, "container_fs_inodes_free", label)
    assert inodes is not None
    assert free is not None
    assert 0 < free < inodes
    watched.docker("exec", "layer", "rm", "/ten")
    eventually(
        lambda: (found := value(watched, family, label)) is not None and found <= before + 16 * BLOCK,
        "the layer as it was",
    )


def test_a_volume_has_its_name_and_is_not_in_the_layer(watched: Any, image: str, eventually: Any) -> None:
    watched.docker("run", "-d", "--name", "volume", "-v", "shop-db:/data", image, "sleep", "600")
    write(watched, "volume", "/data/five", 5)
    labels = ('name="volume"', 'volume="shop-db"')
    eventually(lambda: (value(watched, "container_volume_bytes", *labels) or 0) >= 5 * MIB, "the volume")
    size = value(watched, "container_volume_bytes", *labels)
    assert size is not None
    assert size <= 5 * MIB + 16 * BLOCK
    layer = value(watched, "container_fs_usage_bytes", 'name="volume"')
    assert layer is not None
    assert layer < MIB


def test_a_log_of_a_known_size(watched: Any, image: str, eventually: Any) -> None:
    line = "0123456789012345678901234567890123456789"
    command = f"i=0; while [ $i -lt 2000 ]; do echo {line}; i=$((i+1)); done; sleep 600"
    watched.docker("run", "-d", "--name", "log", image, "sh", "-c", command)
    path = watched.docker("inspect", "-f", "{{.LogPath}}", "log").strip()
    lines = 2000 * len(f'{{"log":"{line}\\n","stream":"stdout","time":""}}')
    family, label = "container_log_bytes", 'name="log"'
    eventually(lambda: (value(watched, family, label) or 0) >= lines, "the log's size")
    blocks = subprocess.run(["stat", "-c", "%b", path], capture_output=True, text=True, check=True).stdout
    eventually(lambda: (value(watched, family, label) or 0) >= int(blocks) * 512, "all of it")
    assert (value(watched, family, label) or 0) <= int(blocks) * 512 + 256 * 1024  # with its index and spool


def test_how_old_the_sizes_are_is_told(watched: Any) -> None:
    ages = watched.metrics().values("taffrail_group_age_seconds", 'group="disk"')
    assert len(ages) == 1
    assert ages[0] >= 0
