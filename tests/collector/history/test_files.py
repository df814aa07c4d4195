"""What is on disk: torn writes at every byte, damage, a full disk, the limit, age."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from collector.clock_trust import ClockTrust
from collector.history.archive import Archive
from collector.history.raw import RawWindow
from collector.history.rows import COLUMNS, Definition, row_type
from collector.history.sealed import (
    Corrupt,
    SealedWindow,
    decode_columns,
    decode_packed,
    encode_columns,
    write_sealed,
)
from collector.history.tier import Losses, Resolution, Tier

from .conftest import BASE, Recorded, sample

US = 1_000_000
FINE, COARSE = Resolution(10, 6 * 3600, 60), Resolution(60, 7 * 86400, 240)


def some_rows(step: int, numbers: range) -> bytes:
    rows = np.zeros(len(numbers), row_type())
    rows["number"] = list(numbers)
    rows["time_us"] = (BASE + step * 10 + 9) * US
    rows["cpu_us"] = [step * 1000 + number for number in numbers]
    rows["samples"] = 10
    return rows.tobytes()


def defined(numbers: range) -> list[Definition]:
    return [Definition(n, f"{n:064x}", f"näme-{n}", "image", "docker") for n in numbers]


def step_us(step: int) -> int:
    return (BASE + step * 10) * US


def test_a_write_torn_at_every_byte_costs_its_step_and_no_other(tmp_path: Path) -> None:
    numbers = range(1, 4)
    whole = RawWindow(tmp_path / "whole", 1)
    ends = []
    for step in range(3):
        whole.append(step_us(step), some_rows(step, numbers), defined(numbers) if step in (0, 2) else [])
        ends.append(whole.bytes)
    whole.close()
    data = (tmp_path / "whole").read_bytes()
    for size in range(len(data) + 1):
        path = tmp_path / "torn"
        path.write_bytes(data[:size])
        window = RawWindow(path, 1)
        good = sum(end <= size for end in ends)
        assert len(window.frames) == good
        assert window.torn_bytes == size - ([0, *ends][good])
        assert path.stat().st_size == [0, *ends][good]
        assert sorted(window.definitions) == (list(numbers) if good else [])
        window.append(step_us(7), some_rows(7, numbers), defined(numbers))  # and goes on
        assert window.series([2], 0, 1 << 60)["cpu_us"].tolist() == [*[2, 1002, 2002][:good], 7002]
        window.close()
        path.unlink()


def test_a_byte_changed_anywhere_is_noticed(tmp_path: Path) -> None:
    numbers = range(1, 3)
    window = RawWindow(tmp_path / "whole", 1)
    for step in range(3):
        window.append(step_us(step), some_rows(step, numbers), defined(numbers))
    window.close()
    data = (tmp_path / "whole").read_bytes()
    one = len(data) // 3
    for at in range(one, 2 * one):
        path = tmp_path / "damaged"
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])
        window = RawWindow(path, 1)
        steps = window.series([1], 0, 1 << 60)["cpu_us"].tolist()
        assert (steps, window.damaged_frames) in (([1, 2001], 1), ([1], 0))
        assert (window.torn_bytes > 0) is (steps == [1])
        window.close()
        path.unlink()


def test_columns_come_back_as_they_were() -> None:
    random.seed(5)
    for count in (1, 2, 360):
        rows = np.zeros(count, row_type())
        for name in COLUMNS:
            info = np.iinfo(row_type()[name])
            rows[name] = [random.choice([0, 1, info.min, info.max, 4096, 10**4]) for _ in range(count)]
        rows["number"] = 9
        rows["limit"] = random.choice([0, -1, 1 << 40])  # what stays as it was is stored apart
        data = encode_columns(rows.tobytes())
        assert (decode_columns(data, 9) == rows).all()
        assert decode_packed(data, 9) == rows.tobytes()
    for at in range(0, len(data), 97):
        for decode in (decode_columns, decode_packed):
            with pytest.raises(Corrupt):
                decode(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], 9)


def test_a_sealed_file_cut_or_changed_is_refused_and_a_changed_chunk_costs_one_container(
    tmp_path: Path,
) -> None:
    numbers = range(1, 4)
    path = tmp_path / "1.sealed"
    write_sealed(
        path, [(one, some_rows(one.number, range(one.number, one.number + 1))) for one in defined(numbers)]
    )
    window = SealedWindow(path, 1)
    assert [entry.definition for entry in window.entries()] == defined(numbers)
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(Corrupt):
            SealedWindow(path, 1)
    path.write_bytes(data[:10] + bytes([data[10] ^ 1]) + data[11:])
    found = window.rows_of(window.entries(), decode_columns)
    assert [isinstance(one, Corrupt) for one in found] == [True, False, False]
    assert list(tmp_path.iterdir()) == [path]


def test_damage_is_counted_and_the_rest_is_answered(recorded: Callable[..., Recorded]) -> None:
    made = recorded(FINE, COARSE)
    ring = made.sampler.add("web")
    made.run(300, lambda s: ring.append(sample(s, s)))
    first, second = made.archive.fine.sealed[:2]
    first.path.write_bytes(b"\0" + first.path.read_bytes()[1:])  # the chunk
    second.path.write_bytes(second.path.read_bytes()[:-1])  # the end
    made.again()
    assert made.archive.losses.damaged == 1
    assert (made.directory / "10s.damaged").exists()
    rows = made.archive.series(False, made.sampler.id("web"), 0, 1 << 60)
    assert made.archive.losses.damaged == 2
    assert int(rows["time_us"].min()) == (BASE + 129) * US


def test_a_full_disk_loses_steps_by_cause_and_no_growth(
    recorded: Callable[..., Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recorded(FINE, COARSE)
    ring = made.sampler.add("web")
    made.run(50, lambda s: ring.append(sample(s, s / 2)))
    write = os.pwrite

    def short(fd: int, data: bytes, offset: int) -> int:
        if len(data) <= 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data[:20], offset)  # some of it, then none

    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", short)
        made.run(90, lambda s: ring.append(sample(s, s / 2)), since=50)
    made.run(200, lambda s: ring.append(sample(s, s / 2)), since=90)
    assert made.archive.losses.steps == {"No space left on device": 5}  # four and the first minute
    made.again()
    assert made.archive.losses.torn_bytes == 0
    rows = made.archive.series(False, made.sampler.id("web"), 0, 1 << 60)
    values = rows[rows["flags"] == 0]
    assert [t // US - BASE for t in values["time_us"].tolist()] == [9, 19, 29, 39, 49, *range(99, 200, 10)]
    assert values["cpu_us"].tolist()[-1] == 199 * 500_000


def test_sealing_that_fails_is_tried_again(
    recorded: Callable[..., Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recorded(FINE, COARSE)
    ring = made.sampler.add("web")

    def refuse(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fdatasync", refuse)
        made.run(130, lambda s: ring.append(sample(s, s)))
        assert not made.archive.fine.sealed
    made.run(150, lambda s: ring.append(sample(s, s)), since=130)
    assert len(made.archive.fine.sealed) == 1
    assert len(made.archive.series(False, made.sampler.id("web"), 0, 1 << 60)) == 16
    assert not list(made.directory.glob("*.tmp"))


def test_a_minute_is_put_together_from_steps_in_several_files(recorded: Callable[..., Recorded]) -> None:
    """The file of ten-second steps was sealed in the middle of the minute, then the process was killed."""
    made = recorded(FINE, COARSE)
    ring = made.sampler.add("web")
    for since, until in ((0, 60), (60, 90), (90, 110)):
        made.run(until, lambda s: ring.append(sample(s, s / 2, pids=s)), since=since)
        made.archive.fine.roll()
    made.again(keep_rings=True)
    made.recorder._positions = {made.sampler.id("web"): ring.appended}
    made.run(200, lambda s: ring.append(sample(s, s / 2, pids=s)), since=110)
    rows = made.archive.series(True, made.sampler.id("web"), 0, 1 << 60)
    values = rows[rows["flags"] == 0]
    assert values["cpu_us"].tolist() == [59 * 500_000, 119 * 500_000, 179 * 500_000]
    assert values["pids_max"].tolist() == [59, 119, 179]
    assert values["samples"].tolist() == [60, 60, 60]


@pytest.mark.parametrize("left", ["raw and sealed", "half a sealed file"])
def test_a_crash_between_sealing_and_removing(recorded: Callable[..., Recorded], left: str) -> None:
    made = recorded(FINE, COARSE)
    ring = made.sampler.add("web")
    made.run(60, lambda s: ring.append(sample(s, s)))
    raw = made.directory / "10s-00000001.raw"
    data = raw.read_bytes()
    made.run(70, lambda s: ring.append(sample(s, s)), since=60)
    sealed = made.directory / "10s-00000001.sealed"
    raw.write_bytes(data)
    if left == "half a sealed file":
        sealed.rename(sealed.with_name(sealed.name + ".tmp"))
    made.again()
    rows = made.archive.series(False, made.sampler.id("web"), 0, 1 << 60)
    assert len(rows) == 8  # the container's begin and seven steps, none twice
    assert sorted(path.name for path in made.directory.iterdir()) == [
        "10s-00000001.sealed",
        "10s-00000002.raw",
        "60s-00000001.raw",
    ]


def test_the_limit_takes_the_oldest_and_says_so(recorded: Callable[..., Recorded]) -> None:
    made = recorded(FINE, COARSE, max_bytes=60_000)
    rings = [made.sampler.add(f"c{number}") for number in range(50)]
    noise = random.Random(3)

    def second(s: int) -> None:
        for ring in rings:
            ring.append(
                sample(s, s + noise.random(), noise.randrange(1 << 30), s * 10**6 + noise.randrange(10**6))
            )

    made.run(600, second)
    archive = made.archive
    assert archive.bytes <= 60_000
    assert sum(path.stat().st_size for path in made.directory.iterdir()) == archive.bytes
    lost = archive.losses
    assert lost.removed_rows["size"] > 0
    assert lost.removed_rows["age"] == 0
    assert archive.rows_written == archive.fine.rows + archive.coarse.rows + lost.removed_rows["size"]
    assert archive.fine.first_us > BASE * US
    rows = archive.series(False, made.sampler.id("c7"), 0, 1 << 60)
    assert int(rows["time_us"].max()) == (BASE + 599) * US  # the newest stays


def test_age_takes_what_is_too_old(recorded: Callable[..., Recorded]) -> None:
    made = recorded(Resolution(10, 120, 60), Resolution(60, 300, 60))
    ring = made.sampler.add("web")
    made.run(900, lambda s: ring.append(sample(s, s)))
    made.archive._clock = ClockTrust()  # time was made to fly, not stepped
    made.run(910, lambda s: ring.append(sample(s, s)), since=900)
    assert made.archive.losses.removed_rows["age"] > 0
    assert 120 <= (BASE + 910) - made.archive.fine.first_us / US < 200
    assert 240 <= (BASE + 910) - made.archive.coarse.first_us / US < 450


def test_thousand_containers_need_one_open_file_a_resolution(recorded: Callable[..., Recorded]) -> None:
    made = recorded(FINE, COARSE)
    before = len(list(Path("/proc/self/fd").iterdir()))
    rings = [made.sampler.add(f"c{number}") for number in range(1000)]
    for step in range(8):
        for ring in rings:
            ring.append(sample(step * 10 + 9, step))
        made.record(step * 10 + 10)
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 2


def test_names_of_containers_that_came_and_went_do_not_gather_in_memory(
    recorded: Callable[..., Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collector.history.archive._MOST_GONE", 300)
    made = recorded()  # files of half an hour
    keep = made.sampler.add("keep")
    for step in range(20):
        kept = {made.sampler.id("keep"): made.sampler.containers[made.sampler.id("keep")]}
        made.sampler.containers = kept
        keep.append(sample(step * 10 + 9, step))
        for index in range(100):
            made.sampler.add(f"job-{step}-{index}").append(sample(step * 10 + 5, 1))
        made.record(step * 10 + 10)
    for tier in (made.archive.fine, made.archive.coarse):
        assert tier.raw is None or len(tier.raw.definitions) <= 700  # a minute of them at once
    assert len(made.archive._definitions) <= 900
    assert len(made.archive.fine.sealed) >= 3
    for step in range(20):
        assert made.archive.find(f"job-{step}-50") is not None
    assert len(made.archive.series(False, made.sampler.id("keep"), 0, 1 << 60)) == 21


def test_numbers_are_not_given_twice(tmp_path: Path) -> None:
    archive = Archive(tmp_path, resolutions=(FINE, COARSE))
    number = archive.number()
    archive.define(Definition(number, "a" * 64, "a", "", ""))
    archive.append(step_us(0), some_rows(0, range(number, number + 1)))
    archive.fine.roll()
    archive.close()
    again = Archive(tmp_path, resolutions=(FINE, COARSE))
    assert again.number() == number + 1
    again.close()


def test_kill_9_in_the_middle_of_writing(tmp_path: Path) -> None:
    """A process that writes steps as fast as it can is killed again and again; what it said it wrote is there."""
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from collector.history.archive import Archive\n"
        "from collector.history.rows import Definition, row_type\n"
        "from collector.history.tier import Resolution\n"
        "a = Archive(Path(sys.argv[1]), resolutions=(Resolution(10, 10**6, 60), Resolution(60, 10**6, 240)))\n"
        "[a.define(Definition(n, f'{n:064x}', f'c{n}', '', '')) for n in range(1, 201)]\n"
        "step = int(sys.argv[2])\n"
        "while True:\n"
        "    rows = np.zeros(200, row_type()); rows['number'] = range(1, 201); rows['samples'] = 10\n"
        f"    rows['time_us'] = ({BASE} + step * 10 + 9) * 1000000; rows['cpu_us'] = step\n"
        f"    a.append(({BASE} + step * 10) * 1000000, rows.tobytes(), ({BASE} + step * 10 + 10) * 10**9)\n"
        "    print(step, flush=True); step += 1\n"
    )
    step = 0
    for life in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "h"), str(step)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(3 + life * 2):
            said = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        said = max([said, *map(int, process.stdout.read().split())])
        process.wait()
        process.stdout.close()
        archive = Archive(tmp_path / "h", resolutions=(Resolution(10, 10**6, 60), Resolution(60, 10**6, 240)))
        written = archive.series(False, f"{77:064x}", 0, 1 << 60)["cpu_us"].tolist()
        assert written[: said + 1] == list(range(said + 1))
        assert len(written) <= said + 2  # one more may be there unsaid
        step = len(written)
        minutes = archive.series(True, f"{77:064x}", 0, 1 << 60)["cpu_us"].tolist()
        assert len(minutes) in ((step - 1) // 6, step // 6)  # written with the first step of the next one
        assert minutes == [minute * 6 + 5 for minute in range(len(minutes))]
        archive.close()


def test_a_tier_opens_an_empty_directory_and_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "10s-00000004.raw").touch()
    tier = Tier(tmp_path, FINE, Losses())
    tier.append(step_us(0), some_rows(0, range(1, 2)), lambda n: Definition(n, "x", "x", "", ""))
    assert tier.rows == 1
    tier.close()
