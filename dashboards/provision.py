"""Brings the dashboard and its data source into a Grafana, through grafana-api.

Everything is put in place or brought up to date; pushing twice changes nothing. Grafana answers a name or
uid it does not have with 404, which is an answer and not a failure here.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from grafana_api.grafana_api import GrafanaClientError, GrafanaException
from grafana_api.grafana_face import GrafanaFace
from requests import RequestException

from dashboards.grafana.docker_and_system import DASHBOARD
from dashboards.grafana.model import render

__all__ = ["DATA_SOURCE", "PushError", "Pushed", "push"]

#: Name and uid of the data source we make.
DATA_SOURCE = "taffrail-prometheus"


class PushError(Exception):
    """Grafana could not be reached or refused; the text says which request and why."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did: the dashboard's address and whether the data source is new."""

    url: str
    version: int
    data_source_made: bool


def push(
    url: str, auth: str | tuple[str, str], prometheus: str = "", folder: str = "", timeout: float = 10.0
) -> Pushed:
    """Push the dashboard to the Grafana at ``url``; with ``prometheus`` (a URL) also the data source.

    ``auth`` is a service account token or user and password, ``folder`` the title of a folder, made if
    absent. Raises PushError.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PushError(f"Grafana address {url!r}: expected http://HOST:PORT or https://HOST:PORT")
    prefix = parts.path.strip("/") + "/" if parts.path.strip("/") else ""
    face = GrafanaFace(
        auth,
        host=parts.hostname,
        port=parts.port,
        url_path_prefix=prefix,
        protocol=parts.scheme,
        timeout=timeout,
    )
    try:
        made = _data_source(face, prometheus) if prometheus else False
        body = {
            "dashboard": {**render(DASHBOARD), "id": None},
            "overwrite": True,
            "message": "pushed by taffrail",
        }
        if folder:
            body["folderUid"] = _folder(face, folder)
        answer = face.dashboard.update_dashboard(body)
    except GrafanaException as error:
        raise PushError(f"Grafana at {url} refused: {error.message}") from error
    except RequestException as error:
        raise PushError(f"Grafana at {url} cannot be reached: {error}") from error
    return Pushed(f"{url.rstrip('/')}{answer.get('url', '')}", int(answer.get("version", 0)), made)


def _data_source(face: GrafanaFace, prometheus: str) -> bool:
    """Make or update the Prometheus data source; true if it is new."""
    wanted = {
        "name": DATA_SOURCE,
        "uid": DATA_SOURCE,
        "type": "prometheus",
        "url": prometheus,
        "access": "proxy",
        "jsonData": {"timeInterval": "10s"},
    }
    try:
        present = face.datasource.get_datasource_by_name(DATA_SOURCE)
    except GrafanaClientError as error:
        if error.status_code != 404:
            raise
        face.datasource.create_datasource(wanted)
        return True
    face.datasource.update_datasource(present["id"], {**wanted, "id": present["id"]})
    return False


def _folder(face: GrafanaFace, title: str) -> str:
    for folder in face.folder.get_all_folders():
        if folder["title"] == title:
            return str(folder["uid"])
    return str(face.folder.create_folder(title)["uid"])
