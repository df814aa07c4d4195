"""A server that fails on demand: the faults a real Elasticsearch cannot be made to show."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from exporters.elasticsearch.config import ElasticsearchConfig
from exporters.elasticsearch.exporter import ElasticsearchExporter

Fault = Callable[[list[tuple[str, dict[str, Any]]]], Any]


class FaultServer(ThreadingHTTPServer):
    """Keeps documents by id as Elasticsearch does; each bulk request first meets the next of ``faults``.

    A fault gets the request's (id, document) pairs and returns None (carry on), a whole answer
    ``(status, body)``, ``"drop"`` (carry out, then close without an answer), or a mapping from an item's
    place to the status it gets.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.documents: dict[str, dict[str, Any]] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.bulk_sizes: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may go away."""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any] | None:
        if "/_bulk" not in path:
            return (404 if method == "GET" else 200), {}
        lines = body.split(b"\n")[:-1]
        pairs = [
            (json.loads(a)["create"]["_id"], json.loads(d))
            for a, d in zip(lines[::2], lines[1::2], strict=True)
        ]
        self.bulk_sizes.append(len(pairs))
        fault = self.faults.pop(0)(pairs) if self.faults else None
        if isinstance(fault, tuple):
            return fault
        items = []
        for place, (key, document) in enumerate(pairs):
            status = fault.get(place) if isinstance(fault, dict) else None
            if status is None:
                status = 409 if key in self.documents else 201
                self.documents.setdefault(key, document)
            error = {} if status == 201 else {"error": {"type": f"e{status}", "reason": "because"}}
            items.append({"create": {"status": status, **error}})
        if fault == "drop":
            return None
        return 200, {"errors": any("error" in i["create"] for i in items), "items": items}


class _Handler(BaseHTTPRequestHandler):
    server: FaultServer
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.requests.append((self.command, self.path))
        self.server.headers.append({k.lower(): v for k, v in self.headers.items()})
        answer = self.server.answer(self.command, self.path, body)
        if answer is None:
            self.close_connection = True
            return
        status, value = answer
        data = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def fault_server() -> Iterator[FaultServer]:
    server = FaultServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def exporting(tmp_path: Path, cursor: Any) -> Callable[..., Any]:
    """``with exporting(url, **options) as exporter``: runs it in a thread until the block ends."""

    @contextlib.contextmanager
    def run(url: str, over: Any = None, **options: Any) -> Iterator[ElasticsearchExporter]:
        defaults = {"backoff_seconds": 0.01, "longest_backoff_seconds": 0.05, "request_timeout_seconds": 20.0}
        config = ElasticsearchConfig((url,), tmp_path / "state", **{**defaults, **options})
        exporter = ElasticsearchExporter(config, over or cursor, "store")
        thread = threading.Thread(target=exporter.run_forever, daemon=True)
        thread.start()
        try:
            yield exporter
        finally:
            exporter.stop()
            thread.join(100)
            assert not thread.is_alive()

    return run
