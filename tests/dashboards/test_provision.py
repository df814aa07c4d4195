"""Pushing to Grafana: against a server that keeps what it is given, by the paths of Grafana's HTTP API."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
import pytest

from dashboards.provision import DATA_SOURCE, PushError, push


class Grafana(ThreadingHTTPServer):
    """The part of Grafana's API that a push uses."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data_sources: dict[str, dict[str, object]] = {}
        self.dashboards: dict[str, dict[str, object]] = {}
        self.folders: list[dict[str, object]] = []
        self.refuse = False


class Handler(BaseHTTPRequestHandler):
    server: Grafana

    def answer(self, status: int, body: object) -> None:
        data = orjson.dumps(body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def body(self) -> dict[str, object]:
        return orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[1]
        if self.headers["Authorization"] != "Bearer token":
            self.answer(401, {"message": "Invalid API key"})
        elif self.path.startswith("/api/folders"):
            self.answer(200, self.server.folders)
        elif name in self.server.data_sources:
            self.answer(200, {"id": 7, **self.server.data_sources[name]})
        else:
            self.answer(404, {"message": "Data source not found"})

    def do_POST(self) -> None:
        body = self.body()
        if self.server.refuse:
            self.answer(412, {"message": "version-mismatch"})
        elif self.path == "/api/datasources":
            self.server.data_sources[str(body["name"])] = body
            self.answer(200, body)
        elif self.path == "/api/folders":
            self.server.folders.append({"title": body["title"], "uid": "f1"})
            self.answer(200, self.server.folders[-1])
        else:
            dashboard = body["dashboard"]
            assert isinstance(dashboard, dict)
            self.server.dashboards[dashboard["uid"]] = body
            self.answer(200, {"url": f"/d/{dashboard['uid']}/x", "version": len(self.server.dashboards)})

    def do_PUT(self) -> None:
        body = self.body()
        self.server.data_sources[str(body["name"])] = body
        self.answer(200, {"message": "Datasource updated"})

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def grafana() -> Iterator[Grafana]:
    server = Grafana()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url(grafana: Grafana) -> str:
    return f"http://127.0.0.1:{grafana.server_address[1]}"


def test_a_push_makes_data_source_folder_and_dashboard_and_a_second_one_updates_them(
    grafana: Grafana,
) -> None:
    first = push(url(grafana), "token", "http://127.0.0.1:9090", "Containers")
    second = push(url(grafana), "token", "http://127.0.0.1:9999", "Containers")
    assert (first.data_source_made, second.data_source_made) == (True, False)
    assert grafana.data_sources[DATA_SOURCE]["url"] == "http://127.0.0.1:9999"
    assert len(grafana.folders) == 1
    kept = grafana.dashboards["taffrail-docker-system"]
    assert kept["overwrite"] is True
    assert kept["folderUid"] == "f1"
    assert first.url == f"{url(grafana)}/d/taffrail-docker-system/x"


def test_what_grafana_refuses_is_said_in_its_words(grafana: Grafana) -> None:
    grafana.refuse = True
    with pytest.raises(PushError, match="version-mismatch"):
        push(url(grafana), "token")
    with pytest.raises(PushError, match="Unauthorized"):
        push(url(grafana), "wrong", "http://127.0.0.1:9090")


def test_nobody_there_and_no_address_are_told_apart() -> None:
    with pytest.raises(PushError, match="cannot be reached"):
        push("http://127.0.0.1:1", "token")
    with pytest.raises(PushError, match="expected http://HOST:PORT"):
        push("grafana", "token")
