"""A real Elasticsearch for tests: one node on loopback, of the distribution made for integration tests.

It comes from the local Maven repository (fetched once if it is not there) and is unpacked into ``.cache/``.
The distribution lacks ``GET /``, ILM, ingest processors and the data stream API; documents, index templates,
bulk, search and data streams made by a first ``create`` are the real thing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from held_port import hold_port

VERSION = "8.19.0"
_ARTIFACT = "org.elasticsearch.distribution.integ-test-zip:elasticsearch"
_CACHE = Path(__file__).resolve().parent.parent / ".cache"
_NOBODY = 65534  # Elasticsearch refuses to run as root


def distribution() -> Path:
    """The unpacked distribution; made once, whoever asks first."""
    home = _CACHE / f"elasticsearch-{VERSION}"
    _CACHE.mkdir(exist_ok=True)
    with (_CACHE / "elasticsearch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "unpacked").exists():
            with zipfile.ZipFile(_archive()) as archive:
                archive.extractall(_CACHE)
            for script in (home / "bin").iterdir():
                script.chmod(0o755)
            (home / "unpacked").touch()
    return home


def _archive() -> Path:
    found = Path.home() / ".m2/repository/org/elasticsearch/distribution/integ-test-zip/elasticsearch"
    archive = found / VERSION / f"elasticsearch-{VERSION}.zip"
    if not archive.exists():
        command = [
            "mvn",
            "-q",
            "dependency:get",
            f"-Dartifact={_ARTIFACT}:{VERSION}:zip",
            "-Dtransitive=false",
        ]
        subprocess.run(command, check=True, timeout=600, stdout=subprocess.DEVNULL)
    return archive


class ElasticsearchServer:
    """One node with its own data directory. ``kill`` and ``start`` keep port and data."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._held = hold_port()
        self.port = int(self._held.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._home = distribution()
        self._process: subprocess.Popen[bytes] | None = None
        config = root / "config"
        shutil.copytree(self._home / "config", config)
        (config / "elasticsearch.yml").write_text(
            f"path.data: {root}/data\npath.logs: {root}/logs\nhttp.port: {self.port}\n"
            "network.host: 127.0.0.1\ntransport.port: 0\ndiscovery.type: single-node\n"
            "xpack.security.enabled: false\ncluster.routing.allocation.disk.threshold_enabled: false\n"
        )
        (root / "tmp").mkdir()  # may not contain the configuration
        # The garbage collector's log is read by nobody.
        options = (config / "jvm.options").read_text().splitlines()
        (config / "jvm.options").write_text("\n".join(o for o in options if "-Xlog:gc" not in o) + "\n")
        for path in (root, *root.rglob("*")):
            os.chown(path, _NOBODY, _NOBODY)

    def start(self) -> None:
        """Start and wait until it answers."""
        java = Path(shutil.which("java") or "/usr/bin/java").resolve().parent.parent
        environment = {
            "PATH": os.environ["PATH"],
            "ES_PATH_CONF": str(self.root / "config"),
            "ES_JAVA_OPTS": "-Xms512m -Xmx512m",
            "ES_JAVA_HOME": str(java),
            "ES_TMPDIR": str(self.root / "tmp"),
            "HOME": str(self.root),
        }
        with (self.root / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [self._home / "bin" / "elasticsearch"],
                env=environment,
                cwd=self.root,
                stdout=output,
                stderr=output,
                user=_NOBODY,
                group=_NOBODY,
                extra_groups=[],
                start_new_session=True,
            )
        deadline = time.monotonic() + 280
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"Elasticsearch did not start:\n{(self.root / 'output').read_text()[-4000:]}"
                )
            time.sleep(0.2)

    def _ready(self) -> bool:
        try:
            return self.request("GET", "/_cluster/health")["status"] in ("yellow", "green")
        except OSError:
            return False

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it with this signal and wait for that."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        self._process.wait(60)
        self._process = None

    def close(self) -> None:
        """End it and let go of its port."""
        self.kill()
        self._held.close()

    def request(self, method: str, target: str, body: object = None) -> Any:
        """One call; returns the parsed answer, an error's too (look at its ``status``)."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + target, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            with error:
                text = error.read()
        return json.loads(text) if text else {}

    def documents(self, index: str, query: object = None, size: int = 10_000) -> list[dict[str, Any]]:
        """The hits of a query, in the order of their sequence; refreshed before."""
        self.request("POST", f"/{index}/_refresh")
        body = {"size": size, "query": query or {"match_all": {}}, "sort": ["event.sequence"]}
        return list(self.request("POST", f"/{index}/_search", body)["hits"]["hits"])

    def count(self, index: str) -> int:
        """Documents in the index (0 when there is none), refreshed before."""
        self.request("POST", f"/{index}/_refresh")
        return int(self.request("GET", f"/{index}/_count").get("count", 0))


@contextlib.contextmanager
def running() -> Iterator[ElasticsearchServer]:
    """A server of one's own, ended and removed at the end."""
    root = Path(tempfile.mkdtemp(prefix="es", dir="/tmp"))
    try:
        server = ElasticsearchServer(root)
        try:
            server.start()
            yield server
        finally:
            server.close()
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def elasticsearch() -> Iterator[ElasticsearchServer]:
    """One server for the whole session: use names of your own, delete nobody else's."""
    with running() as server:
        yield server
