"""Output that vanished with everybody who held it is marked in the log and counted; nothing else is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from logdrivers.driver import Info
from logdrivers.source.spool import Spool
from runtime.shim import streams
from runtime.shim.exit_status import Init
from runtime.shim.gap import (
    GAP_FILE,
    LOST_ALL,
    forget_gap,
    mark_gap,
    mark_gap_in_journal,
    note_gap,
    read_gaps,
)
from runtime.shim.linux import process_start
from runtime.shim.spec import ShimSpec

MARKER = (
    "taffrail: output may be missing here: all that held the container's streams were killed, "
    "and it ended before they were read\n"
)
#: Ends when a file appears in its root file system, which the test makes.
WAITER = "echo up; echo up >&2; while [ ! -e /tmp/NAME ]; do usleep 10000; done; seq 1 100; exit 42"


def spec_of(directory: Path, *, tty: bool = False) -> ShimSpec:
    info = Info("c" * 64, "/name", "", "image", (), 0, directory / "log")
    return ShimSpec(
        container_id="c" * 64,
        bundle=directory,
        run_dir=directory,
        driver="json-file",
        info=info,
        runtime_root=directory,
        tty=tty,
        uid=os.getuid(),
        gid=os.getgid(),
    )


@pytest.fixture
def spec(tmp_path: Path) -> ShimSpec:
    made = spec_of(tmp_path)
    streams.make(made)
    return made


def contents(spec: ShimSpec, name: str = "stderr") -> str:
    return spec.spool_path(name).read_text()


def test_streams_that_somebody_holds_are_no_gap(spec: ShimSpec) -> None:
    held = streams.hold(spec)
    note_gap(spec)
    assert not (spec.run_dir / GAP_FILE).exists()
    for fd in held.values():
        os.close(fd)
    assert streams.unheld(spec) == ["stdout", "stderr"]


def test_a_container_that_holds_its_streams_is_no_gap(spec: ShimSpec) -> None:
    ends = [streams.open_child_end(spec, name) for name in ("stdout", "stderr")]
    note_gap(spec)
    assert not (spec.run_dir / GAP_FILE).exists()
    os.close(ends.pop())
    assert streams.unheld(spec) == ["stderr"]
    os.close(ends.pop())


def test_a_gap_is_marked_behind_what_was_read_and_counted_once(spec: ShimSpec) -> None:
    note_gap(spec)
    spool = Spool(spec.spool_path("stderr"), 0)
    spool.append(b"a line\nhalf a li")
    mark_gap(spec, spool)
    mark_gap(spec, spool)
    assert contents(spec) == f"a line\nhalf a li\n{MARKER}"
    assert spool.end == len(contents(spec))
    assert read_gaps(spec.info.directory) == 1
    note_gap(spec)
    mark_gap(spec, spool)
    assert contents(spec).count(MARKER) == 2
    assert read_gaps(spec.info.directory) == 2
    spool.close()


@pytest.mark.parametrize("done", ["nothing", "placed", "appended", "counted"])
def test_a_kill_in_the_middle_neither_doubles_nor_drops_the_mark(spec: ShimSpec, done: str) -> None:
    note_gap(spec)
    noted = (spec.run_dir / GAP_FILE).read_text()
    spool = Spool(spec.spool_path("stderr"), 0)
    spool.append(b"before\n")
    at = spool.end
    if done != "nothing":
        noted = json.dumps({"at": at})
    if done == "appended":
        spool.append(MARKER.encode())
    if done == "counted":
        mark_gap(spec, spool)
    (spec.run_dir / GAP_FILE).write_text(noted)
    mark_gap(spec, spool)
    assert contents(spec) == f"before\n{MARKER}"
    assert read_gaps(spec.info.directory) == 1
    assert not (spec.run_dir / GAP_FILE).exists()
    spool.close()


def test_a_new_start_forgets_what_was_noted(spec: ShimSpec) -> None:
    note_gap(spec)
    forget_gap(spec)
    spool = Spool(spec.spool_path("stderr"), 0)
    mark_gap(spec, spool)
    assert spool.end == 0
    assert read_gaps(spec.info.directory) == 0
    spool.close()


@pytest.mark.parametrize(("tty", "stream"), [(False, "stderr"), (True, "stdout")])
def test_a_journal_without_a_shim_gets_the_line_as_well(tmp_path: Path, tty: bool, stream: str) -> None:
    info = spec_of(tmp_path).info
    mark_gap_in_journal("json-file", info, tty, 1_700_000_000_000_000_000)
    (line,) = (info.directory / f"{info.container_id}-json.log").read_text().splitlines()
    assert json.loads(line) == {
        "log": f"taffrail: output may be missing here: {LOST_ALL}\n",
        "stream": stream,
        "time": "2023-11-14T22:13:20Z",
    }
    mark_gap_in_journal("json-file", info, tty, 1_700_000_000_000_000_000)
    assert read_gaps(info.directory) == 2


def test_a_container_without_gaps_has_none(tmp_path: Path) -> None:
    assert read_gaps(tmp_path) == 0


# --- with real containers


def waiter(bundles) -> tuple[ShimSpec, Path]:
    """A container that writes a hundred lines and ends once the file is there."""
    spec = bundles.spec("")
    name = spec.container_id[:12]
    return bundles.respec(spec, WAITER.replace("NAME", name)), bundles.directory / "rootfs/tmp" / name


def started(bundles, spec: ShimSpec) -> tuple[subprocess.Popen[bytes], int]:
    """An engine that runs the container, and the shim's pid."""
    engine = bundles.engine_that_runs(spec)
    assert engine.stdout is not None
    _, shim_pid = map(int, engine.stdout.readline().split())
    return engine, shim_pid


def kill(bundles, engine: subprocess.Popen[bytes], *pids: int) -> None:
    engine.kill()  # first of all, or it starts what is killed next again
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    engine.wait()
    assert engine.stdout is not None
    engine.stdout.close()
    bundles.wait_until(lambda: not set(pids) & set(bundles.processes()))


def gone(spec: ShimSpec) -> bool:
    """Whether the container's first process has ended, reaped or not."""
    init = Init.read(spec.run_dir)
    assert init is not None
    if process_start(init.pid) != init.start_ticks:
        return True
    try:
        return Path(f"/proc/{init.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):  # reaped meanwhile
        return True


def adopted(bundles, spec: ShimSpec) -> None:
    async def scenario(shims):
        handle = await shims.adopt(spec)
        return await handle.wait()

    bundles.play(scenario)


def test_all_killed_before_the_pipe_was_read_leaves_a_marker(bundles) -> None:
    spec, go = waiter(bundles)
    engine, shim_pid = started(bundles, spec)
    bundles.wait_until(lambda: len(bundles.records(spec)) == len(bundles.records(spec, "stderr")) == 1)
    os.kill(shim_pid, signal.SIGSTOP)
    go.touch()
    bundles.wait_until(lambda: gone(spec))
    kill(bundles, engine, bundles.template_pid(), shim_pid)
    adopted(bundles, spec)
    assert bundles.records(spec) == ["up\n"]
    assert bundles.records(spec, "stderr") == ["up\n", MARKER]
    assert read_gaps(spec.info.directory) == 1


def test_a_template_that_lives_keeps_what_was_in_the_pipe(bundles) -> None:
    spec, go = waiter(bundles)
    engine, shim_pid = started(bundles, spec)
    bundles.wait_until(lambda: len(bundles.records(spec)) == len(bundles.records(spec, "stderr")) == 1)
    os.kill(shim_pid, signal.SIGSTOP)
    go.touch()
    bundles.wait_until(lambda: gone(spec))
    kill(bundles, engine, shim_pid)
    adopted(bundles, spec)
    assert bundles.records(spec) == ["up\n", *(f"{n}\n" for n in range(1, 101))]
    assert bundles.records(spec, "stderr") == ["up\n"]
    assert read_gaps(spec.info.directory) == 0


def test_a_container_that_still_runs_keeps_what_was_in_the_pipe(bundles) -> None:
    spec, go = waiter(bundles)
    engine, shim_pid = started(bundles, spec)
    bundles.wait_until(lambda: len(bundles.records(spec)) == len(bundles.records(spec, "stderr")) == 1)
    kill(bundles, engine, bundles.template_pid(), shim_pid)

    async def scenario(shims):
        handle = await shims.adopt(spec)
        go.touch()
        return await handle.wait()

    bundles.play(scenario)
    assert bundles.records(spec) == ["up\n", *(f"{n}\n" for n in range(1, 101))]
    assert bundles.records(spec, "stderr") == ["up\n"]
    assert read_gaps(spec.info.directory) == 0
