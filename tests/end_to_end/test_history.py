"""A known load, the container removed, the agent killed: its history is there by CLI, API and page."""

from __future__ import annotations

import json
import os
import re
import signal
import time
import urllib.error
from collections.abc import Callable
from typing import Any


def test_a_removed_container_keeps_its_history(
    taffrail: Any, image: str, eventually: Callable[..., None], page_in_chromium: Callable[[str], str]
) -> None:
    taffrail.up()
    taffrail.import_image(image)
    begun = time.time()
    # A quarter of a CPU for some seconds, by the kernel's quota.
    taffrail.docker(
        "run", "-d", "--name", "burner", "--cpus", "0.25", image, "sh", "-c", "while :; do :; done"
    )
    identity = taffrail.docker("inspect", "-f", "{{.Id}}", "burner").strip()

    def asked(container: str, **query: object) -> Any:
        words = "&".join(f"{key.rstrip('_')}={value}" for key, value in query.items())
        return json.loads(taffrail.get(f"/api/v1/history?container={container}&{words}"))

    def burnt() -> float:
        try:
            return float(asked("burner", from_=-300)["totals"]["cpu_seconds"])
        except urllib.error.HTTPError as error:  # nobody has heard of it yet
            error.close()
            return 0.0

    def seen_burning() -> bool:
        try:
            return "while :" in taffrail.get("/api/v1/history/busiest?container=burner&from=-300")
        except urllib.error.HTTPError as error:  # no step is over yet
            error.close()
            return False

    eventually(lambda: burnt() > 2.5, "two and a half seconds of CPU")
    eventually(seen_burning, "a step with its process")
    # How much it gets is for the host to say: what the kernel counted before and after is what is told between.
    before = taffrail.cpu_seconds("burner")
    eventually(lambda: asked("burner", from_=-300)["totals"]["cpu_seconds"] >= before, "the kernel's count")
    answer = asked("burner", from_=-300)
    used, average = answer["totals"]["cpu_seconds"], answer["averages"]["cpu_percent"]
    assert before <= used <= taffrail.cpu_seconds("burner")
    assert 100 * used / (time.time() - begun) <= average < 30
    known = [value for value in answer["columns"]["cpu_percent"] if value is not None]
    assert min(known) <= average <= max(known)
    taffrail.docker("rm", "-f", "burner")
    final = asked(identity, from_=-300)["totals"]["cpu_seconds"]
    assert final >= used

    def written() -> bool:
        rows = taffrail.metrics().values("taffrail_history_rows", 'step="10s"')
        held = json.loads(taffrail.get("/api/v1/history/at?time=-5"))["containers"]
        return bool(rows) and rows[0] > 0 and all(row["id"] != identity for row in held)

    eventually(written, "steps on disk, and the container gone from what runs")
    eventually(lambda: not list_of_running(taffrail, identity), "the last step's end")
    pid = taffrail.agent_pid()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: taffrail.agent_pid() not in (0, pid), "another agent")
    eventually(lambda: "burner" in taffrail.taffrail("history", check=False), "its answer")
    for key in ("burner", identity, identity[:12]):
        answer = asked(key, from_=-300)
        assert answer["id"] == identity
        assert answer["totals"]["cpu_seconds"] >= final - 0.01
    table = taffrail.taffrail("history", "burner", "--since", "5m", "--step", "10s")
    assert re.search(r"^TIME +CPU % +MAX +THROTTLED +MEM", table, re.MULTILINE)
    told = asked(identity, from_=-300, step=10)
    steps = zip(told["times"], told["columns"]["cpu_percent"], strict=True)
    wanted = [(time.strftime("%H:%M:%S", time.localtime(at)), f"{value:.2f}") for at, value in steps if value]
    rows = re.findall(r"^(\d\d:\d\d:\d\d) +([\d.]+)% ", table, re.MULTILINE)
    assert [row for row in rows if float(row[1])] == wanted, table
    assert wanted
    assert re.search(r"^CPU +.*█.*average \d", table, re.MULTILINE)
    assert json.loads(taffrail.taffrail("history", "burner", "--json"))["name"] == "burner"
    page = page_in_chromium(f"http://{taffrail.address('http')}/?history={identity}&range=21600")
    assert '<span id="history-of">burner</span>' in page
    assert "a point is 30 s" in page
    charts = re.findall(r"<figure>.*?</figure>", page)
    assert [re.search(r"<b>(\w+)</b>", chart)[1] for chart in charts] == ["CPU", "Memory", "Network", "Disk"]  # type: ignore[index]
    highest = max(filter(None, asked(identity, from_=-300, step=30)["columns"]["cpu_percent_max"]))
    label = re.search(r'aria-label="CPU: average \d+\.\d+ %, .*highest ([\d.]+) %', charts[0])
    assert label, charts[0]
    assert abs(float(label[1]) - highest) < 0.1
    assert re.search(r'<path d="M[\d.]+ [\d.]+', charts[0])
    busiest = page.partition('<table id="busiest">')[2].partition("</table>")[0]
    assert re.search(r">\d+\.\d s<.*>\d+\.\d %<.*sh -c while :; do :; done<", busiest), busiest
    assert "<th>Service</th>" in page.partition('<table id="map">')[2].partition("</table>")[0]


def list_of_running(taffrail: Any, identity: str) -> bool:
    """Whether a row on disk may still be to come: the step in which the container ended is not over."""
    now = json.loads(taffrail.get("/api/v1/health"))["time_ns"] / 1e9
    ended = json.loads(taffrail.get("/api/v1/history/containers"))
    last = next(one["last_us"] / 1e6 for one in ended if one["id"] == identity)
    return bool(now < last - last % 10 + 11)
