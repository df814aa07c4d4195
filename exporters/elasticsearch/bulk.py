"""Sends ready-made bodies to an Elasticsearch or OpenSearch, through the official client's transport.

The transport brings node selection, TLS and time limits; what an answer means is ``outcome.py``'s, when to
send again the exporter's.
"""

from __future__ import annotations

import base64
import logging
from dataclasses import dataclass
from typing import Any

import elastic_transport
from elasticsearch import Elasticsearch
from isal import igzip

from exporters.elasticsearch.config import ElasticsearchConfig

__all__ = ["Answer", "Connection", "Unreachable"]

# It would log a line for every request.
logging.getLogger("elastic_transport.transport").setLevel(logging.WARNING)


class Unreachable(Exception):
    """No host took the request, or none answered in time; it may have been carried out."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came."""

    status: int
    body: bytes


class _AsBytes(elastic_transport.Serializer):
    """Leaves bodies alone: they are made and parsed elsewhere."""

    def loads(self, data: bytes) -> bytes:
        return data

    def dumps(self, data: Any) -> bytes:
        return data  # type: ignore[no-any-return]  # bytes, or a view of them


class _Node(elastic_transport.Urllib3HttpNode):
    """A host, without the original's debug log, which decodes every body whether it is shown or not."""

    def _log_request(self, *_: Any, **__: Any) -> None:
        pass


class Connection:
    """The hosts of one cluster. Safe from one thread at a time; ``close`` from any."""

    def __init__(self, config: ElasticsearchConfig) -> None:
        self._gzip = config.gzip
        self._timeout_seconds = config.request_timeout_seconds
        self._headers = _authorization(config)
        as_bytes = _AsBytes()
        kinds = ("application/json", "application/x-ndjson", "text/plain", "text/html", "*/*")
        options: dict[str, Any] = {}
        if any(host.startswith("https:") for host in config.hosts):
            options["verify_certs"] = config.verify_certs
            if config.ca_certs:
                options["ca_certs"] = config.ca_certs
            if config.client_cert:
                options["client_cert"] = config.client_cert
            if config.client_key:
                options["client_key"] = config.client_key
            if not config.verify_certs:
                options["ssl_show_warn"] = False
        client = Elasticsearch(
            list(config.hosts),
            serializers=dict.fromkeys(kinds, as_bytes),
            node_class=_Node,
            **options,
        )
        # The client itself refuses every server that is not Elastic's own; its transport talks to all of
        # them. It costs less CPU than aiohttp for a few large requests (bench/elasticsearch.py) and keeps
        # the client's rules for hosts, TLS and dead nodes. Compressing is ours: the client's is gzip -9.
        self._transport = client.transport

    def bulk(self, index: str, body: bytes | memoryview, filter_path: str) -> Answer:
        """Send a bulk body. Raises Unreachable."""
        headers = {"content-type": "application/x-ndjson"}
        if self._gzip:
            body = igzip.compress(body, 1)
            headers["content-encoding"] = "gzip"
        return self._request("POST", f"/{index}/_bulk?filter_path={filter_path}", headers, body)

    def request(self, method: str, target: str, body: bytes | None = None) -> Answer:
        """Any other request, with a JSON body. Raises Unreachable."""
        headers = {} if body is None else {"content-type": "application/json"}
        return self._request(method, target, headers, body)

    def _request(
        self, method: str, target: str, headers: dict[str, str], body: bytes | memoryview | None
    ) -> Answer:
        headers = {"accept": "application/json", **self._headers, **headers}
        try:
            response = self._transport.perform_request(
                method,
                target,
                headers=headers,
                body=body,
                max_retries=0,
                request_timeout=self._timeout_seconds,
            )
        except elastic_transport.TransportError as error:
            raise Unreachable(f"{method} {target.partition('?')[0]}: {error}") from error
        return Answer(response.meta.status, response.body or b"")

    def close(self) -> None:
        """Close the connections; a request under way fails."""
        self._transport.close()


def _authorization(config: ElasticsearchConfig) -> dict[str, str]:
    if config.api_key:
        return {"authorization": f"ApiKey {config.api_key}"}
    if config.bearer_token:
        return {"authorization": f"Bearer {config.bearer_token}"}
    if config.username:
        pair = base64.b64encode(f"{config.username}:{config.password}".encode()).decode()
        return {"authorization": f"Basic {pair}"}
    return {}
