"""A template that lived on while another build was installed: it is replaced, and nothing it kept is lost."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from runtime.shim import build
from runtime.shim.exit_status import Waited
from runtime.shim.shims import ShimSpec

#: A template of another build, which engines of that build can be had to know. Once the file ``refuse`` is there
#: it is as old as one that tells of no build, and knows specifications of its own only.
OLD = """
from pathlib import Path
from runtime.shim import build
build.fingerprint = lambda: "old"
from runtime.shim.template import Template
real = Template._answer
def answer(self, request, fds):
    if not Path("refuse").exists():
        return real(self, request, fds)
    if request["op"] not in ("hello", "shutdown"):
        raise TypeError("ShimSpec.__init__() got an unexpected keyword argument 'park_seconds'")
    return {key: value for key, value in real(self, request, fds).items() if key != "build"}
Template._answer = answer
"""
READER = "read line; echo got $line; exit 43"


def of_the_old_build(shims: Any) -> Any:
    shims._template._build = "old"
    return shims


def play_old(bundles: Any, scenario: Any) -> Any:
    """As an engine of the old template's build."""
    real = bundles.shims
    bundles.shims = lambda: of_the_old_build(real())
    try:
        return bundles.play(scenario)
    finally:
        del bundles.shims


@pytest.fixture(params=["tells its build", "tells none"])
def old(request: Any, bundles: Any) -> Any:
    """A template of another build, and what makes it as old as the parameter says."""
    template = bundles.template_after(OLD)
    refuse = bundles.directory / "run" / "refuse"
    yield template, refuse.touch if request.param == "tells none" else lambda: None
    template.kill()
    template.wait()


def superseded(caplog: Any) -> list[str]:
    return [record.message for record in caplog.records if "another takes its place" in record.message]


def test_another_build_s_template_is_replaced_and_what_runs_goes_on(
    bundles: Any, old: Any, caplog: Any
) -> None:
    template, age = old
    go = bundles.directory / "rootfs" / "go"
    spec = bundles.spec(
        "echo one; until test -e /go; do usleep 10000; done; echo two; exit 42", park_seconds=0.05
    )

    async def first(shims: Any) -> int:
        return int((await shims.run(spec)).pid)

    async def second(shims: Any) -> Any:
        handle = await shims.adopt(spec)
        later = await shims.run(bundles.spec("exit 7"))
        go.touch()
        return handle.pid, (await later.wait()).code, (await handle.wait()).code

    pid = play_old(bundles, first)
    assert bundles.template_pids() == [template.pid]
    assert superseded(caplog) == []
    age()
    assert bundles.play(second) == (pid, 7, 42)
    assert template.wait(100) == 0
    assert len(bundles.template_pids()) == 1
    assert bundles.records(spec) == ["one\n", "two\n"]
    assert len(superseded(caplog)) == 1

    async def third(_shims: Any) -> None:
        pass

    there = bundles.template_pids()
    bundles.play(third)
    assert bundles.template_pids() == there


def test_it_kept_streams_of_containers_without_a_shim(bundles: Any, old: Any) -> None:
    template, age = old
    go = bundles.directory / "rootfs" / "go"
    ended = bundles.spec("seq 1 5000; until test -e /go; do usleep 10000; done; seq 5001 6000; exit 41")
    reads = bundles.spec(READER, open_stdin=True)
    terminal = bundles.spec(READER, tty=True, open_stdin=True)
    specs: list[ShimSpec] = [ended, reads, terminal]

    async def first(shims: Any) -> list[int]:
        return [(await shims.run(spec)).shim_pid for spec in specs]

    async def second(shims: Any) -> list[int]:
        handles = [await shims.adopt(spec) for spec in specs]
        for handle in handles[1:]:
            session = await handle.attach()
            await session.write_stdin(b"this\n")
            await handle.wait()
            await session.close()
        return [(await handle.wait()).code for handle in handles]

    for pid in play_old(bundles, first):
        os.kill(pid, signal.SIGKILL)
    go.touch()
    bundles.wait_until(lambda: Waited.read(ended.run_dir))
    age()
    assert bundles.play(second) == [41, 43, 43]
    assert template.wait(100) == 0
    assert bundles.records(ended) == [f"{n}\n" for n in range(1, 6001)]
    assert bundles.records(reads) == ["got this\n"]
    assert bundles.records(terminal)[-1] == "got this\r\n"


def test_the_fingerprint_is_of_contents(tmp_path: Path) -> None:
    place = Path(build.__file__).parents[2]
    for package in ("logdrivers", "runtime/shim", "runtime/oci"):
        shutil.copytree(place / package, tmp_path / package, copy_function=shutil.copyfile)
    assert build.fingerprint(tmp_path) == build.fingerprint()
    (tmp_path / "runtime/shim/spec.py").write_text("another")
    changed = build.fingerprint(tmp_path)
    (tmp_path / "runtime/shim/more.py").write_text("")
    assert len({build.fingerprint(), changed, build.fingerprint(tmp_path)}) == 3


def test_a_specification_of_another_version(bundles: Any, caplog: Any) -> None:
    spec = bundles.spec("true")
    value = spec.to_json()
    value["info"]["colour"] = value["flavour"] = "new"
    assert ShimSpec.from_json(value).to_json() == spec.to_json()
    assert "specification of a shim: flavour passed over" in caplog.text
    assert "description of a container: colour passed over" in caplog.text
    del value["bundle"]
    with pytest.raises(ValueError, match="specification of a shim without bundle: another version"):
        ShimSpec.from_json(value)
