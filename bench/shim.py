"""What a shim costs: CPU per line written through json-file, and memory while it is idle, then parked.

The container prints a file of 100-byte lines (``cat``) and then sleeps. Counted is every thread of the shim,
by the scheduler's own nanoseconds, between the start of the container and the last line in the journal.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.table import Row, print_table
from logdrivers.driver import Info
from runtime.shim.linux import tells_exits
from runtime.shim.shims import Shims, ShimSpec
from taffrail.demo import busybox_rootfs

__all__ = ["main"]

LINE_COUNT = 2_000_000
KINDS = {
    "plain": b"2026-01-31 request %010d served from cache in 12 ms for tenant alpha, 200, 5120 bytes and more..\n",
    "quotes": b'"a" "b" "c" "%010d" "d" "e" <f> & "g" "h" "i" "j" "k" "l" "m" "n" "o" "p" "q" "r" "s" "t" "u" "v\n',
}
BUDGETS = {"plain": 0.5}


class Bench:
    """A run directory, a root file system and a template."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.shims = Shims(directory / "run")
        self.started: list[ShimSpec] = []
        with tarfile.open(fileobj=io.BytesIO(busybox_rootfs())) as tar:
            tar.extractall(directory / "rootfs", filter="tar")

    def spec(self, script: str) -> ShimSpec:
        """A container without network, of the shell script."""
        name = uuid.uuid4().hex * 2
        bundle = self.directory / name
        bundle.mkdir()
        value = {
            "ociVersion": "1.0.2",
            "root": {"path": str(self.directory / "rootfs"), "readonly": True},
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": ["/bin/sh", "-c", script],
                "env": ["PATH=/bin"],
                "cwd": "/",
            },
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {
                "cgroupsPath": f"/taffrail-bench/{name[:12]}",
                "namespaces": [{"type": kind} for kind in ("pid", "mount", "network")],
            },
        }
        (bundle / "config.json").write_text(json.dumps(value))
        run_dir = self.directory / "run" / "containers" / name
        run_dir.mkdir(parents=True)
        info = Info(name, "/bench", "", "busybox", (), 0, self.directory / "logs" / name)
        spec = ShimSpec(
            container_id=name,
            bundle=bundle,
            run_dir=run_dir,
            driver="json-file",
            info=info,
            runtime_root=self.directory / "runc",
        )
        self.started.append(spec)
        return spec

    def clear(self) -> None:
        """Delete every container and what the runtime left in the cgroup trees."""
        for spec in self.started:
            command = ["runc", "--root", str(spec.runtime_root), "delete", "--force", spec.container_id]
            subprocess.run(command, check=False, capture_output=True)
        for path in Path("/sys/fs/cgroup").glob("*/taffrail-bench"):
            path.rmdir()


@contextmanager
def bench() -> Iterator[Bench]:
    """A bench that cleans up after itself."""
    directory = Path(tempfile.mkdtemp(dir="/tmp", prefix="shim-bench-"))
    made = Bench(directory)
    try:
        yield made
    finally:
        made.clear()
        shutil.rmtree(directory, ignore_errors=True)


def cpu_ns(pid: int) -> int:
    """CPU time of all threads of a process (``/proc/PID/task/*/schedstat``)."""
    return sum(
        int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()
    )


def pss_bytes(pid: int) -> int:
    """Proportional set size of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/{pid}/smaps_rollup has no Pss line")


async def lines(made: Bench, kind: str, count: int) -> float:
    """Microseconds of CPU per line."""
    file = made.directory / "rootfs" / "lines"
    with file.open("wb") as out:
        for start in range(0, count, 10000):
            out.write(b"".join(KINDS[kind] % n for n in range(start, start + 10000)))
    handle = await made.shims.run(made.spec("usleep 200000; cat /lines; sleep 1000"))
    before = cpu_ns(handle.shim_pid)
    while (await handle.counters())["lines"] < count:
        await asyncio.sleep(0.25)
    spent = cpu_ns(handle.shim_pid) - before
    await handle.signal(9)
    await handle.wait()
    return spent / count / 1000


async def idle(made: Bench, count: int) -> tuple[float, float]:
    """Mebibytes per idle shim: two seconds after a line, and once it is parked, where shims are."""
    handles = [await made.shims.run(made.spec("echo up; sleep 1000")) for _ in range(count)]
    await asyncio.sleep(2)
    awake = sum(pss_bytes(handle.shim_pid) for handle in handles)
    shims = [handle.shim_pid for handle in handles]
    while tells_exits() and any(handle.shim_pid in shims for handle in handles):
        await asyncio.sleep(0.25)
    await asyncio.sleep(2)
    parked = sum(pss_bytes(handle.shim_pid) for handle in handles)
    for handle in handles:
        await handle.signal(9)
        await handle.wait()
    return awake / count / 2**20, parked / count / 2**20


async def run(count: int, rounds: int) -> list[Row]:
    """All rows."""
    rows = []
    with bench() as made:
        await made.shims.start()
        try:
            for kind in KINDS:
                best = min([await lines(made, kind, count) for _ in range(rounds)])
                rows.append(
                    Row(f"shim, json-file, {kind}", "us CPU per line", best, budget=BUDGETS.get(kind))
                )
            awake, parked = await idle(made, 20)
            rows.append(Row("shim after a line, 20 running", "MiB PSS", awake))
            rows.append(Row("idle shim, parked after 10 s, 20 running", "MiB PSS", parked, budget=2.0))
        finally:
            await made.shims.shutdown()
    return rows


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=LINE_COUNT)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print_table(asyncio.run(run(options.lines, options.rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
