"""Shims killed while lines are long, joined, dropped or made to wait: everything is accounted for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal

import pytest

from logdrivers.source.rate_limit import read_dropped

MARKER = re.compile(r"taffrail: (\d+) lines \((\d+) bytes\) dropped: over rate-limit \d+ bytes/s\n")
#: Each writer goes on until its shims were killed often enough, and tells how many rounds it made of it.
ENOUGH, ROUNDS = "enough", "rounds"
#: Numbered lines of 100 bytes, a thousand a round.
WRITER = (
    "i=0; while [ $i -lt 60 ] || [ ! -e /enough ]; do "
    "awk -v i=$i 'BEGIN { for (n = i * 1000; n < i * 1000 + 1000; n++) printf \"%099d\\n\", n }'; "
    "usleep 20000; i=$((i+1)); done; echo $i >/rounds; exit 42"
)
#: Messages of three lines with single ones between them, a hundred a round, on both streams.
TRACES = """
w() {
  awk -v c=$1 'BEGIN {
    while (n < 2000 || system("test -e /enough")) {
      do { printf "%s %d\\n\\tat A.b\\n\\tat A.c\\n%s single %d\\n", c, n, c, n; n++ } while (n % 100)
      fflush(); system("usleep 20000")
    }
    print (n / 100) > ("/rounds-" c)
  }'
}
w out & w err >&2; wait; exit 42
"""
#: Lines of 300,000 bytes in writes of 10,000.
LONG = """
i=0
while [ $i -lt 25 ] || [ ! -e /enough ]; do
  awk -v i=$i 'BEGIN {
    s = sprintf("%010000d", i)
    for (n = 0; n < 30; n++) { printf "%s", s; fflush() }
    print ""
  }'
  usleep 40000
  i=$((i+1))
done
echo $i >/rounds
exit 42
"""


async def killed_again_and_again(bundles, shims, spec, seed: int, enough: int) -> None:
    """Run to the end, killing its shims, thirty at most; the writer ends after ``enough`` of them at the earliest."""
    chance = random.Random(seed)
    handle = await shims.run(spec)
    kills = 0
    while handle.running:
        await asyncio.sleep(chance.uniform(0.01, 0.1))
        killed = handle.shim_pid
        if not handle.running or not killed or kills == 30:
            continue
        with contextlib.suppress(ProcessLookupError):
            os.kill(killed, signal.SIGKILL)
            kills += 1
        if kills == enough:
            (bundles.directory / "rootfs" / ENOUGH).touch()
        async with asyncio.timeout(100):
            while handle.running and handle.shim_pid == killed:
                await asyncio.sleep(0.01)
    assert (await handle.wait()).code == 42
    assert kills >= enough


def rounds(bundles, name: str = ROUNDS) -> int:
    """How many the writer made."""
    return int((bundles.directory / "rootfs" / name).read_text())


@pytest.mark.parametrize("more", [{}, {"max-size": "500k", "max-file": "3"}], ids=["one file", "rotating"])
def test_dropped_lines_are_counted_exactly(bundles, more):
    spec = bundles.spec(WRITER, log_options={"rate-limit": "16k", **more})
    bundles.play(lambda shims: killed_again_and_again(bundles, shims, spec, 1, 5))
    dropped = read_dropped(spec.info.directory)
    assert dropped.lines > 1000
    assert dropped.bytes == 100 * dropped.lines
    if more:
        return  # older files are gone, and what they said with them
    here = said = 0
    for text in bundles.records(spec):
        if marker := MARKER.fullmatch(text):
            here += int(marker[1])
            said += int(marker[1])
        else:
            assert int(text) == here
            here += 1
    assert (here, said) == (1000 * rounds(bundles), dropped.lines)


def test_a_container_that_waits_loses_nothing(bundles):
    spec = bundles.spec(WRITER, log_options={"rate-limit": "2m", "rate-limit-policy": "wait"})
    bundles.play(lambda shims: killed_again_and_again(bundles, shims, spec, 2, 5))
    assert [int(text) for text in bundles.records(spec)] == list(range(1000 * rounds(bundles)))


def test_messages_stay_whole(bundles):
    spec = bundles.spec(TRACES, log_options={"multiline": "java"})
    bundles.play(lambda shims: killed_again_and_again(bundles, shims, spec, 3, 3))
    for stream, name in (("stdout", "out"), ("stderr", "err")):
        expected = []
        for n in range(100 * rounds(bundles, f"{ROUNDS}-{name}")):
            expected += [f"{name} {n}\n\tat A.b\n\tat A.c\n", f"{name} single {n}\n"]
        assert bundles.records(spec, stream) == expected


def test_long_lines_stay_whole(bundles):
    spec = bundles.spec(LONG, log_options={"max-line-size": "1m"})
    bundles.play(lambda shims: killed_again_and_again(bundles, shims, spec, 4, 3))
    assert bundles.records(spec) == [f"{n:010000d}" * 30 + "\n" for n in range(rounds(bundles))]


def test_a_message_is_out_when_nothing_follows_it(bundles):
    spec = bundles.spec(
        "printf 'a\\n b\\n'; sleep 1000", log_options={"multiline": "indented", "multiline-timeout": "50ms"}
    )

    async def scenario(shims):
        handle = await shims.run(spec)
        async with asyncio.timeout(100):
            while (await handle.counters())["lines"] < 1:
                await asyncio.sleep(0.01)
        await handle.signal(signal.SIGKILL)
        await handle.wait()

    bundles.play(scenario)
    assert bundles.records(spec) == ["a\n b\n"]
