"""``taffrail stats`` over several agents: real HTTP servers that answer what an agent answers, or do not."""

from __future__ import annotations

import csv
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from held_port import hold_port

from taffrail import stats_feed
from taffrail.__main__ import main
from taffrail.config import Config
from taffrail.errors import CommandError
from taffrail.hosts import Host, hosts_of
from taffrail.stats_feed import frames

Rows = list[dict[str, object]]


class AgentServer(ThreadingHTTPServer):
    daemon_threads = True
    rows: Rows
    token = ""
    streamed = 1000


class _Handler(BaseHTTPRequestHandler):
    server: AgentServer

    def do_GET(self) -> None:
        if self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self.send_response(401)
            self.end_headers()
            self.wfile.write(b'{"message": "no token shown: expected one"}')
            return
        self.send_response(200)
        self.end_headers()
        body = json.dumps({"host": "own", "containers": self.server.rows}).encode() + b"\n"
        self.wfile.write(body)
        if "stream=1" in self.path:
            self.wfile.flush()
            for _ in range(self.server.streamed):
                self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def agent() -> Iterator[Callable[..., AgentServer]]:
    servers = []

    def start(*names: str, token: str = "", port: int = 0) -> AgentServer:
        server = AgentServer(("127.0.0.1", port), _Handler)
        server.token = token
        server.rows = [
            {
                "name": name,
                "id": name.encode().hex() + "0" * 40,
                "host": "own",
                "time_ns": 1,
                "cpu_percent": float(len(name)),
            }
            for name in names
        ]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def url(server: AgentServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


@pytest.fixture
def nowhere() -> Iterator[str]:
    """A port that is taken and refuses."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_filter_over_two_hosts_shows_each_with_its_host_and_who_does_not_answer(
    agent, nowhere: str, capsys: pytest.CaptureFixture[str]
) -> None:
    alpha, beta = agent("a", "webby"), agent("webserver", "b")
    words = [f"--host=alpha={url(alpha)}", f"--host=beta={url(beta)}", f"--host=gamma={nowhere}"]
    status = main(["stats", "--no-stream", "--filter", "cpu > 2", "--sort", "cpu", *words])
    out, err = capsys.readouterr()
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["HOST", "NAME"],
        ["beta", "webserver"],
        ["alpha", "webby"],
    ]
    assert f"gamma: no agent answers on {nowhere}" in err
    assert status == 1


def test_json_and_csv_are_an_object_or_a_line_for_each_container(
    agent, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--host=alpha={url(agent('a', 'bb'))}", f"--host=beta={url(agent('c'))}"]
    assert main(["stats", "--no-stream", "--json", *words]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["Name"], row["host"], row["cpu_percent"]) for row in rows] == [
        ("a", "alpha", 1.0),
        ("bb", "alpha", 2.0),
        ("c", "beta", 1.0),
    ]
    assert main(["stats", "--no-stream", "--csv", "--reverse", "--limit", "2", *words]) == 0
    lines = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(line["host"], line["name"]) for line in lines] == [("beta", "c"), ("alpha", "bb")]


def test_names_are_looked_for_on_every_host(agent, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"--host=alpha={url(agent('a', 'bb'))}", f"--host=beta={url(agent('c'))}"]
    assert main(["stats", "--no-stream", *words, "bb", "c"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["NAME", "bb", "c"]
    assert main(["stats", "--no-stream", *words, "bb", "nobody"]) == 1
    assert "No such container: nobody" in capsys.readouterr().err


def test_hosts_and_their_token_come_from_the_configuration(
    agent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guarded = agent("a", token="s3cret")
    settings = ["--set", f"client.hosts.alpha={url(guarded)}"]
    assert main([*settings, "stats", "--no-stream"]) == 1
    assert "no token shown" in capsys.readouterr().err
    (tmp_path / "token").write_text("s3cret\n")
    settings += ["--set", f"client.token_file={tmp_path}/token"]
    assert main([*settings, "stats", "--no-stream"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["alpha", "a"]


def test_a_stream_goes_on_without_the_agent_that_went_and_finds_it_again(agent) -> None:
    with hold_port() as held:
        port = held.getsockname()[1]
        alpha, beta = agent("a"), agent("b", port=port)
        beta.streamed = 0
        hosts = hosts_of(Config(), [f"alpha={url(alpha)}", f"beta={url(beta)}"], 5.0)
        beta.shutdown()
        beta.server_close()
        with closing(frames(hosts, {}, seconds=0.02)) as stream:
            assert any(frame.errors.get("beta", "").startswith("no agent answers") for frame in _some(stream))
            agent("b", port=port)
            assert any({str(row["name"]) for row in frame.rows} >= {"b"} for frame in _some(stream))
        ended(hosts)


def _some(stream: Iterator) -> Iterator:
    return (next(stream) for _ in range(5000))


def ended(hosts: Sequence[Host]) -> None:
    """Wait until nobody asks these hosts any more."""
    names = {f"stats of {host.address}" for host in hosts}
    deadline = time.monotonic() + 100
    while names & {thread.name for thread in threading.enumerate()}:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_frame_that_is_late_comes_at_once(agent, nowhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if every look at the clock takes longer than frames are apart."""
    looks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: float(next(looks)), sleep=time.sleep)
    monkeypatch.setattr(stats_feed, "time", clock)
    hosts = hosts_of(Config(), [f"alpha={url(agent('a'))}", f"gamma={nowhere}"], 5.0)
    with closing(frames(hosts, {}, seconds=0.02)) as stream:
        assert len([next(stream) for _ in range(20)]) == 20
    ended(hosts)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("alpha", "expected NAME=http://HOST:PORT"),
        ("=http://x", "expected NAME="),
        ("alpha=ftp://x", "host alpha: 'ftp://x': expected http://HOST:PORT"),
        ("alpha=http://x:port", "host alpha: 'http://x:port': expected"),
        ("alpha=http://", "host alpha: 'http://': expected"),
    ],
)
def test_a_host_that_cannot_be_asked_is_named(given: str, message: str) -> None:
    with pytest.raises(CommandError) as raised:
        hosts_of(Config(), [given])
    assert message in str(raised.value)


def test_unix_is_this_hosts_agent_or_a_socket() -> None:
    hosts = hosts_of(Config(), ["here=unix:", "there=unix:///tmp/x.sock"])
    assert [host.address for host in hosts] == ["/run/taffrail/agent.sock", "/tmp/x.sock"]


@pytest.mark.parametrize("words", [["--filter", "cpu >> 2"], ["--sort", "colour"], ["--host", "alpha"]])
def test_what_cannot_be_read_is_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", *words]) == 2
    assert f"taffrail: stats: {words[0]} {words[1]!r}: " in capsys.readouterr().err
