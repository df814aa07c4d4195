"""Who was busiest: found by real processes with known loads, kept on disk within bounds, asked for later."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from burning_program import burning_program

from collector.container import Container
from collector.discovery.registry import Containers
from collector.processes.busiest import (
    BusyProcess,
    BusyThread,
    Group,
    Step,
    choose,
    decode_step,
    encode_step,
    folded,
)
from collector.processes.past import NothingKnown, Past
from collector.processes.recorder import ProcessArchive, ProcessRecorder
from collector.processes.scan import Scan
from collector.roots import Roots

Start = Callable[..., subprocess.Popen[str]]
SECOND = 1_000_000
BASE = 1_760_004_000 // 3600 * 3600 * SECOND


@pytest.fixture
def containers(cgroup: Path) -> Containers:
    known = Containers()
    known.update(Container("c" * 64, "web", cgroup=f"/{cgroup.name}"))
    return known


@pytest.fixture
def make(tmp_path: Path, containers: Containers) -> Iterator[Callable[[], ProcessRecorder]]:
    """A recorder over the same files as the one before."""
    archives: list[ProcessArchive] = []

    def recorder() -> ProcessRecorder:
        for archive in archives:
            archive.close()
        archives.append(ProcessArchive(tmp_path / "past", 1 << 20))
        return ProcessRecorder(containers, Roots(), archives[-1], share=1.0)

    yield recorder
    for archive in archives:
        archive.close()


def at(recorder: ProcessRecorder, time_us: int, key: str = "c" * 64) -> Group | None:
    return Past(recorder._archive).at(time_us).groups.get(key)


def burn_for(seconds: float, pid: int) -> None:
    """Wait until a process has used so much CPU time."""
    clock = (~pid << 3) | 2
    until = time.clock_gettime(clock) + seconds
    deadline = time.monotonic() + 60
    while time.clock_gettime(clock) < until:
        assert time.monotonic() < deadline, "the burner gets no CPU time"
        time.sleep(0.02)


def test_the_thread_that_burned_is_found_after_it_and_the_recorder_are_gone(
    make: Callable[[], ProcessRecorder], program: Start, cgroup: Path
) -> None:
    recorder = make()
    recorder.record()
    burner, sleeper = program(burning_program(waiting=4)), program("")
    for process in (burner, sleeper):
        (cgroup / "cgroup.procs").write_text(str(process.pid))
    for _ in range(3):
        burn_for(0.3, burner.pid)
        recorder.record()
    moment_us = recorder._archive.fine.last_us
    burner.kill()
    burner.wait()
    recorder.record()
    recorder.record()
    for again in range(2):
        if again:
            recorder = make()
        group = at(recorder, moment_us)
        assert group is not None
        assert group.name == "web"
        assert [process.pid for process in group.processes] == [burner.pid, sleeper.pid]
        found = group.processes[0]
        assert found.cpu_us >= 250_000
        assert found.threads == 6
        assert found.busiest[0].name == "the-burner"
        assert found.busiest[0].cpu_us > 0.6 * found.cpu_us
        assert not any(thread.name.startswith("idle") for thread in found.busiest)
        assert "import sys" in found.command
        assert len(found.command) <= 160
        assert group.processes[1].cpu_us == 0
        used = Past(recorder._archive).over(0, moment_us + SECOND, "c" * 64)
        assert used[0].process.pid == burner.pid
        assert used[0].process.cpu_us >= 800_000
        assert used[0].process.busiest[0].name == "the-burner"
    after = at(recorder, time.time_ns() // 1000)
    assert after is not None
    assert [process.pid for process in after.processes] == [sleeper.pid]


def test_what_sleeps_is_not_written_again_and_is_known_all_the_same(
    make: Callable[[], ProcessRecorder], program: Start, cgroup: Path
) -> None:
    sleeper = program("")
    (cgroup / "cgroup.procs").write_text(str(sleeper.pid))
    recorder = make()
    begin_ns = time.time_ns() // (1800 * 10**9) * 1800 * 10**9  # a file's: every half hour one begins
    for second in range(4):
        recorder.record(begin_ns + second * 10**9)
    moment_us = begin_ns // 1000 + 3 * SECOND
    steps = [decode_step(data) for _, data in recorder._archive.fine.between(0, moment_us + SECOND)]
    assert [step.whole for step in steps] == [True, False, False, False]
    named = [[group.id for group in step.groups if group.id != "/"] for step in steps]
    assert named[0] == ["c" * 64]
    assert named[2:] == [[], []]
    group = at(recorder, moment_us)
    assert group is not None
    assert [process.pid for process in group.processes] == [sleeper.pid]
    assert group.processes[0].resident_bytes > 1 << 20
    sleeper.kill()
    sleeper.wait()
    recorder.record(begin_ns + 4 * 10**9)
    assert at(recorder, moment_us + SECOND) is None, "the container has no process any more"


def test_storage_read_and_written_is_found(
    make: Callable[[], ProcessRecorder], program: Start, cgroup: Path, on_disk: Path
) -> None:
    recorder = make()
    recorder.record()
    path = on_disk / "file"
    writer = program(
        f"import os\nfd = os.open({str(path)!r}, os.O_CREAT | os.O_WRONLY)\nos.write(fd, bytes(2 << 20))\nos.fsync(fd)"
    )
    (cgroup / "cgroup.procs").write_text(str(writer.pid))
    recorder.record()
    group = at(recorder, time.time_ns() // 1000)
    assert group is not None
    assert group.processes[0].write_bytes >= 2 << 20


def test_a_budget_reads_the_busiest_first_and_counts_the_rest(program: Start) -> None:
    burner = program(burning_program(waiting=4))
    for _ in range(4):  # the host may have no others that do anything
        program(
            "import threading, time\ndef go():\n    while True: time.sleep(0.01)\n"
            "threading.Thread(target=go, daemon=True).start()"
        )
    scan = Scan(Path("/proc"), spent=lambda: 0.0)
    scan.look(1.0)
    burn_for(1.0, burner.pid)
    clock = iter([0.0, *[0.0] * 3, *[9.0] * 100_000])  # the third process is one too many
    scan._spent = lambda: next(clock)
    scan.look(1.0)
    read = scan.moved(list(scan._known))
    assert len(read) <= 3
    assert scan.unread > 0
    assert burner.pid in read or all(scan._known[pid].cpu_ns > 500_000_000 for pid in read)


def test_looks_are_left_out_when_they_cost_too_much(tmp_path: Path, containers: Containers) -> None:
    archive = ProcessArchive(tmp_path / "past", 1 << 20)
    recorder = ProcessRecorder(containers, Roots(), archive, share=1e-9)
    for _ in range(5):
        recorder.record()
    assert recorder.looks == 2, "the first is free, the second uses up what there is"
    assert recorder.skipped == 3
    archive.close()


def test_a_number_that_is_used_again_is_another_process(program: Start) -> None:
    scan = Scan(Path("/proc"))
    scan.look(10.0)
    mine = scan._known[os.getpid()]
    mine.stat = mine.stat._replace(start_ticks=mine.stat.start_ticks + 1)
    mine.clock_ns -= 5_000_000_000  # as if it had used five seconds since
    scan.look(10.0)
    assert scan.process(os.getpid()).cpu_us < 4_000_000


# --- what is kept of each -----------------------------------------------------------------------------


def process(pid: int, cpu_us: int = 0, resident: int = 0, io: int = 0, *threads: BusyThread) -> BusyProcess:
    return BusyProcess(
        pid, pid, 0, 1, f"p{pid}", f"p{pid} -x", 0, "S", 1, cpu_us, cpu_us, resident, io, 0, threads
    )


def group(key: str, *processes: BusyProcess) -> Group:
    return Group(key, key, processes)


def test_the_busiest_by_each_measure_are_chosen_and_the_others_added_up() -> None:
    crowd = [process(n, cpu_us=n) for n in range(1, 51)]
    crowd += [process(100, resident=9), process(101, io=9)]
    chosen, others, cpu_us = choose(crowd)
    assert [one.pid for one in chosen][:5] == [50, 49, 48, 47, 46]
    assert {100, 101} <= {one.pid for one in chosen}
    assert others == len(crowd) - len(chosen)
    assert cpu_us == sum(range(1, 51)) - sum(one.cpu_us for one in chosen)
    assert len(chosen) <= 11


def test_steps_as_bytes_and_back_and_bytes_that_are_none() -> None:
    step = Step(10_000_000, True, (group("a", process(1, 5, 6, 7, BusyThread(2, 3, "t", 4))), group("b")))
    assert decode_step(encode_step(step)) == step
    for data in (b"", b"[1,2,3]", b"[9,1,true,[]]", b"\xff" * 40, encode_step(step)[:-3]):
        with pytest.raises(ValueError, match="cannot be read"):
            decode_step(data)


def test_what_a_step_does_not_mention_is_as_it_was_but_idle() -> None:
    whole = Step(10, True, (group("a", process(1, 500)), group("b", process(2, 500))))
    state = folded([whole, Step(10, False, (group("b"), group("c", process(3, 7))))])
    assert {key: [p.cpu_us for p in one.processes] for key, one in state.items()} == {"a": [0], "c": [7]}
    assert folded([whole, Step(10, True, ())]) == {}


# --- minutes and questions ----------------------------------------------------------------------------


def filled(directory: Path, seconds: int) -> ProcessArchive:
    """Steps of ten seconds, in which process 1 of ``a`` uses a second each, process n another in the n-th minute."""
    archive = ProcessArchive(directory, 1 << 20)
    for second in range(10, seconds + 1, 10):
        time_us = BASE + second * SECOND
        now = process(100 + (second - 1) // 60, SECOND // 10)
        groups = (group("a", process(1, SECOND, 0, 0, BusyThread(7, 7, "t", SECOND)), now),)
        archive.append(time_us, Step(10 * SECOND, archive.fine.begins(time_us), groups), time_us * 1000)
    return archive


def test_minutes_are_the_sums_of_their_steps_across_a_restart(tmp_path: Path) -> None:
    archive = filled(tmp_path, 90)
    archive.close()
    archive = ProcessArchive(tmp_path, 1 << 20)
    for second in range(100, 200, 10):
        time_us = BASE + second * SECOND
        archive.append(time_us, Step(10 * SECOND, False, (group("a", process(1, SECOND)),)), time_us * 1000)
    minutes = [(at_us, decode_step(data)) for at_us, data in archive.coarse.between(0, 1 << 62)]
    assert [(at_us - BASE) // SECOND for at_us, _ in minutes] == [60, 120, 180]
    assert [step.span_us for _, step in minutes] == [60 * SECOND] * 3
    used = [{one.pid: one.cpu_us for one in step.groups[0].processes} for _, step in minutes]
    assert used == [{1: 6 * SECOND, 100: 600_000}, {1: 6 * SECOND, 101: 300_000}, {1: 6 * SECOND}]
    archive.close()


def test_the_minute_after_forgets_who_ended_in_it(tmp_path: Path) -> None:
    archive = filled(tmp_path, 60)
    for second, groups in ((70, (group("a", process(1)),)), (130, ()), (190, ())):
        time_us = BASE + second * SECOND
        archive.append(time_us, Step(10 * SECOND, False, groups), time_us * 1000)
    past = Past(archive, clock=lambda: (BASE + 7 * 3600 * SECOND) * 1000)
    archive.fine._sealed.clear()
    archive.fine._close_growing()
    assert [one.pid for one in past.at(BASE + 50 * SECOND).groups["a"].processes] == [1, 100]
    assert [one.pid for one in past.at(BASE + 115 * SECOND).groups["a"].processes] == [1]
    archive.close()


def test_a_question_is_answered_from_the_step_that_covers_the_moment(tmp_path: Path) -> None:
    archive = filled(tmp_path, 600)
    past = Past(archive, clock=lambda: (BASE + 600 * SECOND) * 1000)
    for second, until in ((1, 10), (10, 10), (11, 20), (599, 600), (605, 600)):
        moment = past.at(BASE + second * SECOND)
        assert (moment.to_us - BASE) // SECOND == until
        assert moment.seconds == 10
    for second in (-60, 700, -100_000):
        with pytest.raises(NothingKnown, match="no processes were recorded"):
            past.at(BASE + second * SECOND)
    moment, found = past.threads_at(BASE + 15 * SECOND, 1, 1)
    assert [thread.tid for thread in found.busiest] == [7]
    with pytest.raises(NothingKnown, match="process 1 was not among"):
        past.threads_at(BASE + 15 * SECOND, 1, 2)
    used = {one.process.pid: one for one in past.over(BASE, BASE + 600 * SECOND)}
    assert used[1].process.cpu_us == 60 * SECOND
    assert used[1].most_cpu_percent == 10
    assert used[100].process.cpu_us == 600_000
    assert ((used[100].first_us - BASE) // SECOND, (used[100].last_us - BASE) // SECOND) == (0, 60)
    later = Past(archive, clock=lambda: (BASE + 8 * 3600 * SECOND) * 1000)
    assert later.over(BASE, BASE + 540 * SECOND)[0].process.cpu_us == 54 * SECOND, "from the minutes"
    archive.close()


def test_a_step_written_while_the_newest_is_asked_for_hides_it_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = filled(tmp_path, 590)
    between = archive.fine.between

    def meanwhile(since_us: int, until_us: int) -> Iterator[tuple[int, bytes]]:
        found = list(between(since_us, until_us))
        time_us = BASE + 600 * SECOND
        archive.append(time_us, Step(10 * SECOND, True, (group("a", process(1)),)), time_us * 1000)
        return iter(found)

    monkeypatch.setattr(archive.fine, "between", meanwhile)
    past = Past(archive, clock=lambda: (BASE + 600 * SECOND) * 1000)
    assert past.at(BASE + 595 * SECOND).to_us == BASE + 590 * SECOND
    archive.close()


def test_a_gap_in_which_no_agent_ran_is_one(tmp_path: Path) -> None:
    archive = filled(tmp_path, 60)
    time_us = BASE + 300 * SECOND
    archive.append(time_us, Step(0, True, (group("a", process(1)),)), time_us * 1000)
    past = Past(archive, clock=lambda: time_us * 1000)
    with pytest.raises(NothingKnown):
        past.at(BASE + 200 * SECOND)
    assert past.at(time_us - SECOND).seconds == 0
    archive.close()


def test_recording_and_asking_at_once(make: Callable[[], ProcessRecorder]) -> None:
    recorder = make()
    recorder.record()
    failures: list[Exception] = []

    def ask() -> None:
        for _ in range(20):
            try:
                at(recorder, time.time_ns() // 1000)
            except (NothingKnown, ValueError, OSError, RuntimeError) as error:
                failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        recorder.record()
    for thread in threads:
        thread.join()
    assert failures == []
