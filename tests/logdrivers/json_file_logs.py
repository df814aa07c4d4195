"""A container's json-file log as its tests write and read it: by the driver, and by the files alone."""

import gzip
import json
from pathlib import Path

from logdrivers.block import Block, Encoding, Stream
from logdrivers.driver import Info
from logdrivers.json_file import JsonFileDriver, log_path

NS = 1_795_203_812_003_026_720
DRIVER = JsonFileDriver()


def info_for(directory: Path, **options: str) -> Info:
    return Info(
        container_id="c0ffee" + "0" * 58,
        container_name="/web",
        image_id="sha256:" + "1" * 64,
        image_name="busybox:1",
        command=("sh",),
        created_ns=NS,
        directory=directory,
        options={key.replace("_", "-"): value for key, value in options.items()},
        labels={"l1": "a<b", "l2": "unasked"},
        env={"E1": "x"},
    )


def block_of(*lines: str, stream: Stream = Stream.STDOUT, time_ns: int = NS) -> Block:
    data = "".join(line + "\n" for line in lines).encode()
    return Block(data, Encoding.LINES, stream, time_ns, time_ns, len(lines))


def numbered(first: int, count: int) -> Block:
    return block_of(*(f"line {n} of the container's output" for n in range(first, first + count)))


def logs_of(path: Path) -> list[str]:
    return [json.loads(line)["log"] for line in path.read_bytes().splitlines()]


def all_logs(info: Info) -> list[str]:
    """What is in all generations, oldest first."""
    path = log_path(info)
    found: list[str] = []
    for number in range(99, 0, -1):
        for name in (Path(f"{path}.{number}"), Path(f"{path}.{number}.gz")):
            if name.exists():
                data = gzip.decompress(name.read_bytes()) if name.suffix == ".gz" else name.read_bytes()
                found += [json.loads(line)["log"] for line in data.splitlines()]
                break
    return found + logs_of(path)
