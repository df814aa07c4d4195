"""Real remote-write receivers for tests, on ports of their own, that can be stopped and started again."""

from __future__ import annotations

import json
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import weakref
from pathlib import Path
from typing import Any

from held_port import hold_port

Series = dict[tuple[tuple[str, str], ...], float]


class Receiver:
    """A server process with its data in a directory."""

    path = ""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.options = options
        held = hold_port()
        weakref.finalize(self, held.close)  # the port stays its own as long as it may be started again
        self.address = f"127.0.0.1:{held.getsockname()[1]}"
        self.url = f"http://{self.address}{self.path}"
        self._opener = urllib.request.build_opener()
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(exist_ok=True)

    def command(self) -> list[str]:
        raise NotImplementedError

    def over_tls(self, certificate: Path, user: str, password: str) -> None:
        """It speaks TLS with this certificate and wants this user."""
        self.url = self.url.replace("http:", "https:")
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        passwords.add_password(None, self.url, user, password)
        passwords.add_password(None, self.url.removesuffix(self.path), user, password)
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(certificate))),
            urllib.request.HTTPBasicAuthHandler(passwords),
        )

    def start(self) -> None:
        """Returns when it is ready."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while True:
            try:
                self.get("/-/ready" if "prometheus" in self.command()[0] else "/health")
                return
            except OSError:
                assert self._process.poll() is None, (self.directory / "log").read_text()[-3000:]
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(120)
            self._process = None

    def get(self, path: str, **query: str) -> str:
        url = self.url.removesuffix(self.path) + path
        if query:
            url += f"?{urllib.parse.urlencode(query)}"
        with self._opener.open(url, timeout=30) as answer:
            return str(answer.read().decode())

    def at(self, time_ms: int) -> Series:
        """Every series there is at a moment."""
        query = {"query": '{__name__=~".+"}', "time": f"{time_ms / 1000:.3f}"}
        answer: Any = json.loads(self.get("/api/v1/query", **query))
        return {
            tuple(sorted(found["metric"].items())): float(found["value"][1])
            for found in answer["data"]["result"]
        }

    def samples(self, selector: str) -> list[tuple[int, float]]:
        """Times (ms) and values of the one series a selector finds, over the last hour."""
        answer: Any = json.loads(self.get("/api/v1/query", query=f"{selector}[1h]"))
        (series,) = answer["data"]["result"] or [{"values": []}]
        return [(round(float(moment) * 1000), float(value)) for moment, value in series["values"]]


class VictoriaMetrics(Receiver):
    """Debian's single-node VictoriaMetrics."""

    path = "/api/v1/write"

    def command(self) -> list[str]:
        return [
            "victoria-metrics",
            f"-httpListenAddr={self.address}",
            f"-storageDataPath={self.directory}/data",
            "-search.latencyOffset=0s",
            "-search.disableCache",
            "-retentionPeriod=100y",
            *self.options,
        ]

    def get(self, path: str, **query: str) -> str:
        if path == "/api/v1/query":
            super().get("/internal/force_flush")
        return super().get(path, **query)


class PrometheusReceiver(Receiver):
    """A Prometheus that scrapes nothing and takes remote writes."""

    path = "/api/v1/write"

    def command(self) -> list[str]:
        (self.directory / "prometheus.yml").write_text("{}")
        return [
            "prometheus",
            f"--config.file={self.directory}/prometheus.yml",
            f"--storage.tsdb.path={self.directory}/data",
            f"--web.listen-address={self.address}",
            "--web.enable-remote-write-receiver",
            *self.options,
        ]
