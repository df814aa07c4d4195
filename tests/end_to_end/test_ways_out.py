"""Series and rows as others get them: service discovery, remote write, stats on a terminal and from afar."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_server import Prometheus
from remote_write_receivers import VictoriaMetrics

SERVE = "mkdir /w && echo 'app_requests_total 7' > /w/stats && exec httpd -f -p 8080 -h /w"


@pytest.fixture
def guarded(taffrail: Any, image: str) -> tuple[Any, Path]:
    """An agent that wants a token, and the file with it."""
    token = taffrail.root / "token"
    token.write_text("s3cret\n")
    taffrail.settings.append(f"http.token_file={token}")
    taffrail.up()
    taffrail.import_image(image)
    return taffrail, token


def test_prometheus_finds_the_agent_and_the_container_by_service_discovery(
    guarded: tuple[Any, Path], image: str, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    taffrail, token = guarded
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        taffrail.get("/metrics")
    refused.value.close()
    labels = ["taffrail.scrape=true", "taffrail.port=8080", "taffrail.path=/stats", "team=shop"]
    options = [word for label in labels for word in ("-l", label)]
    taffrail.docker("run", "-d", "--name", "app", *options, image, "sh", "-c", SERVE)
    # Prometheus 2.42 forgets the default type where service discovery is concerned.
    credentials = {"authorization": {"type": "Bearer", "credentials_file": str(token)}}
    renamed = {
        "name": "__meta_taffrail_container_name",
        "team": "__meta_taffrail_container_label_team",
        "kind": "__meta_taffrail_kind",
        "host": "__meta_taffrail_host",
    }
    scrape = {
        **credentials,
        "http_sd_configs": [
            {"url": f"http://{taffrail.address('http')}/api/v1/sd", "refresh_interval": "1s", **credentials}
        ],
        "relabel_configs": [
            {"source_labels": [meta], "target_label": label} for label, meta in renamed.items()
        ],
    }
    server = Prometheus(tmp_path, "", scrape=scrape)
    try:
        found = 'app_requests_total{name="app",team="shop",kind="container",host="testhost"}'
        eventually(lambda: server.query(found), "the container's own metrics")
        assert server.value(found) == 7
        eventually(lambda: server.query('up{kind="agent"} == 1'), "the agent, scraped with its token")
        assert server.value('count(container_last_seen{name="app"})') == 1
        taffrail.docker("rm", "-f", "app")
        eventually(lambda: not server.query("app_requests_total"), "the target to go")
    finally:
        server.close()


def test_stats_asks_an_agent_over_tcp_with_its_token(guarded: tuple[Any, Path], image: str) -> None:
    taffrail, token = guarded
    taffrail.docker("run", "-d", "--name", "idle", image, "sleep", "600")
    host = f"far=http://{taffrail.address('http')}"
    words = ("stats", "--no-stream", "--json", "--host", host, "--host", "near=unix:", "idle")
    near = taffrail.taffrail(*words, check=False)
    assert [json.loads(line)["host"] for line in near.splitlines()] == ["near"]
    taffrail.settings.append(f"client.token_file={token}")
    rows = [json.loads(line) for line in taffrail.taffrail(*words).splitlines()]
    assert [(row["host"], row["Name"]) for row in rows] == [("far", "idle"), ("near", "idle")]
    assert rows[0]["id"] == rows[1]["id"]


@pytest.fixture
def victoria(tmp_path: Path) -> Iterator[VictoriaMetrics]:
    server = VictoriaMetrics(tmp_path / "vm")
    try:
        server.start()
        yield server
    finally:
        server.stop()


def test_remote_write_has_what_metrics_has(
    taffrail: Any, image: str, victoria: VictoriaMetrics, eventually: Callable[..., None]
) -> None:
    taffrail.settings += [
        f"remote_write.url={victoria.url}",
        "remote_write.interval=1s",
        "remote_write.external_labels.datacenter=eu",
    ]
    taffrail.up()
    taffrail.import_image(image)
    taffrail.docker("run", "-d", "--name", "mine", "-m", "64m", image, "sleep", "600")

    def there(expr: str) -> list[float]:
        answer: Any = json.loads(victoria.get("/api/v1/query", query=expr))
        return [float(found["value"][1]) for found in answer["data"]["result"]]

    ours = '{name="mine",job="taffrail",instance="testhost",datacenter="eu"}'
    eventually(lambda: there(f"container_spec_memory_limit_bytes{ours}"), "the container")
    assert there(f"container_spec_memory_limit_bytes{ours}") == [64 << 20]
    only = [line for line in taffrail.get("/metrics?id=mine").splitlines() if not line.startswith("#")]
    assert only
    assert all('name="mine"' in line for line in only)
    victoria.stop()
    eventually(
        lambda: taffrail.metrics().values("taffrail_remote_write_held_samples")[0] > 0, "samples that wait"
    )
    taffrail.docker("kill", "mine")
    victoria.start()
    page: Any = None

    def caught_up() -> bool:
        nonlocal page
        page = taffrail.metrics()
        return page.values("taffrail_remote_write_held_samples") == [0.0] and page.values(
            "taffrail_remote_write_up"
        ) == [1.0]

    eventually(caught_up, "nothing that waits")
    # What a container had when it ended does not change any more.
    eventually(lambda: there(f"container_exit_code{ours}") == [137.0], "the end")
    page = taffrail.metrics()
    families = (
        "cpu_usage_seconds_total",
        "memory_failures_total",
        "fs_reads_bytes_total",
        "start_time_seconds",
    )
    for family in families:
        here = sorted(page.values(f"container_{family}", 'name="mine"'))
        assert sorted(there(f"container_{family}{ours}")) == pytest.approx(here, rel=1e-12), family
    eventually(lambda: not there(f"container_memory_usage_bytes{ours}"), "the gauges to be stale")
    assert not page.values("taffrail_remote_write_dropped_samples_total")


class Terminal:
    """A terminal of tmux' own server, with a program in it."""

    def __init__(self, *command: str) -> None:
        self._name = f"tg{uuid.uuid4().hex[:8]}"
        shell = ("sh", "-c", 'trap : INT; "$@"; echo "it ended with $?"; exec cat', "sh")
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "12", *shell, *command)

    def _tmux(self, *words: str) -> str:
        answer = subprocess.run(
            ["tmux", "-L", self._name, *words], capture_output=True, text=True, check=True, timeout=120
        )
        return answer.stdout

    def lines(self) -> list[str]:
        return self._tmux("capture-pane", "-p").splitlines()

    def resize(self, columns: int, rows: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def keys(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def state(self, what: str) -> str:
        return self._tmux("display-message", "-p", f"#{{{what}}}").strip()

    def close(self) -> None:
        self._tmux("kill-server")


def test_live_stats_stay_in_place_and_fit_the_window(
    shared_taffrail: Any, image: str, eventually: Callable[..., None]
) -> None:
    names = [f"row{number}" for number in range(6)]
    for name in names:
        shared_taffrail.docker("run", "-d", "--name", name, image, "sleep", "600")
    terminal = Terminal(*shared_taffrail.command("stats", "--filter", "name:row*", "--sort=-name"))
    try:

        def shown() -> list[str]:
            return [line.split()[0] for line in terminal.lines() if line.strip()]

        eventually(lambda: shown() == ["NAME", *reversed(names)], "rows")
        assert terminal.state("cursor_flag") == "0"
        terminal.resize(30, 5)
        eventually(lambda: shown() == ["NAME", "row5", "row4", "…"], "the rows that fit")
        assert terminal.lines()[3].startswith("… 4 more")
        assert max(map(len, terminal.lines())) <= 30
        terminal.resize(120, 12)
        eventually(lambda: any("row0" in line for line in terminal.lines()), "all rows again")
        assert sum("NAME" in line for line in terminal.lines()) == 1
        terminal.keys("C-c")
        eventually(lambda: any("it ended with 130" in line for line in terminal.lines()), "the end")
        assert terminal.state("cursor_flag") == "1"
    finally:
        terminal.close()
        shared_taffrail.docker("rm", "-f", *names)
