"""History: CPU per container and second, bytes on disk per container and day, time of questions about seven days.

The sampler is replaced by rings filled by hand, so that a week passes in minutes; everything behind it is the
agent's: recording, minutes, sealing, removing, reading. One container in ten is busy (all its counters move by
uneven amounts), three are half idle, the others do nothing but exist.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.table import Row, print_table
from collector.container import Container
from collector.discovery.registry import Containers
from collector.history.archive import Archive
from collector.history.reader import HistoryReader
from collector.history.recorder import Recorder
from collector.history.ring import History
from collector.sample import BlockIO, Cpu, Interface, Memory, Sample

__all__ = ["main"]

SECOND = 1_000_000_000
DAY = 86400


class Rings:
    """What recorder and reader ask a sampler."""

    def __init__(self, count: int, start: int) -> None:
        self.interval = 1.0
        self.machine = SimpleNamespace(memory=SimpleNamespace(total_bytes=8 << 30))
        self._random = random.Random(1)
        self.made = [
            (
                Container(id=f"{n:064x}", name=f"service-{n}", image="registry.example/team/service:1.2.3",
                          engine="docker", started_ns=start * SECOND),
                History(),
            )
            for n in range(count)
        ]  # fmt: skip
        self._totals = [[0.0, 0, 0] for _ in range(count)]

    def rings(self) -> list[tuple[str, Container | None, History, int]]:
        return [("/", None, History(), 0), *((c.id, c, ring, 512 << 20) for c, ring in self.made)]

    def sample(self, second: float, samples: int) -> None:
        """``samples`` points a container, the last one now."""
        draw = self._random
        for index, (_, ring) in enumerate(self.made):
            totals = self._totals[index]
            kind = index % 10
            for number in range(samples):
                if kind == 0:  # busy
                    totals[0] += draw.random()
                    totals[1] += draw.randrange(1_000_000)
                    totals[2] += 4096 * draw.randrange(100)
                    memory = (200 << 20) + 4096 * draw.randrange(5000)
                elif kind < 4:  # answers a health check now and then
                    totals[0] += 0.001 * draw.random()
                    totals[1] += 66 * draw.randrange(4)
                    memory = (50 << 20) + 4096 * draw.randrange(3)
                else:
                    memory = 5 << 20
                rx = int(totals[1])
                ring.append(
                    Sample(
                        round((second - samples + 1 + number) * SECOND) + draw.randrange(2_000_000),
                        Cpu(totals[0]),
                        Memory(memory, memory - (1 << 20)),
                        (BlockIO("8:0", int(totals[2]), int(totals[2]), 0, 0),),
                        7 + (draw.randrange(3) if kind == 0 else 0),
                        interfaces=(Interface("eth0", rx, 0, 0, 0, rx // 3, 0, 0, 0),),
                    )
                )


def resident() -> float:
    """MiB of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def timed(ask: Callable[[], Any], times: int = 7) -> float:
    """Milliseconds of CPU of a question, the median."""
    taken = []
    for _ in range(times):
        before = time.process_time()
        ask()
        taken.append(time.process_time() - before)
    return statistics.median(taken) * 1e3


def recording(count: int, seconds: int) -> tuple[float, float]:
    """Microseconds a container and second with ten samples a step, and MiB the process grew by."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="tfh") as directory:
        start = int(time.time()) // 14400 * 14400
        rings = Rings(count, start)
        archive = Archive(Path(directory))
        recorder = Recorder(rings, archive, "bench")  # type: ignore[arg-type]
        for second in range(600):  # rings at their full size: they were there before
            rings.sample(start + second, 1)
        recorder.record((start + 600) * SECOND)
        before, spent = resident(), recorder.cpu_seconds
        for second in range(609, 600 + seconds, 10):
            rings.sample(start + second, 10)
            recorder.record((start + second + 1) * SECOND)
        grown = resident() - before
        archive.close()
        return (recorder.cpu_seconds - spent) / count / seconds * 1e6, grown


def week(count: int, days: float, max_bytes: int) -> dict[str, float]:
    """Days of history with a sample every ten seconds; bytes and times of questions."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="tfh") as directory:
        end = int(time.time()) // 60 * 60
        start = end - round(days * DAY)
        rings = Rings(count, start)
        archive = Archive(Path(directory), max_bytes)
        recorder = Recorder(rings, archive, "bench")  # type: ignore[arg-type]
        archive._clock.trusts = lambda now_ns: True  # type: ignore[method-assign]  # time is made to fly
        clock = SimpleNamespace(now=end)
        for second in range(start + 9, end, 10):
            rings.sample(second, 1)
            recorder.record((second + 1) * SECOND)
        reader = HistoryReader(
            Containers(),
            rings,
            archive,
            "bench",
            clock=lambda: clock.now * SECOND,  # type: ignore[arg-type]
        )
        us = 1_000_000
        busy, idle = rings.made[0][0].id, rings.made[-1][0].id
        answer = {
            "bytes of minutes": archive.coarse.bytes / count / days,
            "bytes of tens": archive.fine.bytes / count / min(days * DAY, 6 * 3600) * DAY,
            "all bytes": float(archive.bytes),
            "removed": float(archive.losses.removed_rows["size"]),
            "oldest": (end - archive.coarse.first_us / us) / DAY,
            "week": timed(lambda: reader.curves(busy, start * us, end * us)),
            "week, every minute": timed(lambda: reader.curves(busy, start * us, end * us, 60)),
            "six hours": timed(lambda: reader.curves(idle, (end - 6 * 3600) * us, end * us)),
            "ten minutes": timed(lambda: reader.curves(idle, (end - 600) * us, end * us)),
            "at": timed(lambda: reader.at((end - 3 * DAY) * us)) if days > 3 else 0.0,
            "find": timed(lambda: archive.find("service-1")),
            "open": 0.0,
        }
        archive.close()
        before = time.process_time()
        Archive(Path(directory), max_bytes).close()
        answer["open"] = (time.process_time() - before) * 1e3
        return answer


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--containers", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=3600, help="to record with a sample a second")
    parser.add_argument("--days", type=float, default=7.5)
    options = parser.parse_args()
    count = options.containers
    cost, grown = recording(count, options.seconds)
    found = week(count, options.days, 256 << 20)
    rows = [
        Row("recording, sealing included", "µs a container and second", cost),
        Row(f"memory of recording {count} containers", "MiB", grown),
        Row("minutes on disk", "bytes a container and day", found["bytes of minutes"]),
        Row("ten seconds on disk", "bytes a container and day", found["bytes of tens"]),
        Row(f"{count} containers, {found['oldest']:.1f} days on disk", "MiB", found["all bytes"] / (1 << 20)),
        Row("seven days of a container, 720 steps at most", "ms CPU", found["week"]),
        Row("seven days of a container, every minute", "ms CPU", found["week, every minute"]),
        Row("six hours of a container", "ms CPU", found["six hours"]),
        Row("ten minutes of a container", "ms CPU", found["ten minutes"]),
        Row(f"all {count} containers three days ago", "ms CPU", found["at"]),
        Row("opening at the agent's start", "ms CPU", found["open"]),
    ]
    print_table(rows)


if __name__ == "__main__":
    main()
