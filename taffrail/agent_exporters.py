"""The agent's exporters by configuration, imported only where they are switched on.

What they send and how is theirs (``exporters/elasticsearch``, ``exporters/remote_write``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from collector.store import Store
from exporters.prometheus.self_metrics import SelfMetrics
from taffrail.config import Config
from taffrail.errors import CommandError
from taffrail.paths import Paths

if TYPE_CHECKING:
    from exporters.elasticsearch.exporter import ElasticsearchExporter
    from exporters.remote_write.exporter import RemoteWriteExporter

__all__ = ["make_elasticsearch", "make_remote_write"]

#: Keys of the configuration by the options of the exporters.
_KEYS = {
    "batch_bytes": "batch_size",
    "interval_seconds": "interval",
    "queue_bytes": "queue_size",
    "timeout_seconds": "request_timeout",
}


def make_elasticsearch(config: Config, paths: Paths, store: Store) -> ElasticsearchExporter:
    """The exporter of lines to Elasticsearch. Raises CommandError, OSError."""
    from exporters.elasticsearch.config import ElasticsearchConfig  # memory most hosts can spare
    from exporters.elasticsearch.exporter import ElasticsearchExporter

    given = config.elasticsearch
    try:
        checked = ElasticsearchConfig(
            hosts=given.hosts,
            data_stream=given.data_stream,
            username=given.username,
            password=given.password,
            api_key=given.api_key,
            ca_certs=given.ca_certs,
            verify_certs=given.verify_certs,
            batch_bytes=given.batch_size,
            state_directory=paths.collector_state / "elasticsearch",
        )
    except ValueError as error:
        raise _refused("elasticsearch", error) from error
    return ElasticsearchExporter(checked, store.cursor("elasticsearch"), store.identity)


def make_remote_write(
    config: Config, paths: Paths, page: Callable[[], bytes], own: SelfMetrics
) -> RemoteWriteExporter:
    """The sender of the page of metrics, its own counters in ``own``. Raises CommandError, OSError."""
    from exporters.remote_write.config import RemoteWriteConfig
    from exporters.remote_write.exporter import RemoteWriteExporter
    from exporters.remote_write.metrics import remote_write_metrics

    given = config.remote_write
    labels = {"job": "taffrail", "instance": config.collector.host}
    try:
        checked = RemoteWriteConfig(
            url=given.url,
            directory=paths.collector_state / "remote_write",
            interval_seconds=given.interval,
            username=given.username,
            password_file=given.password_file,
            bearer_token_file=given.bearer_token_file,
            ca_certs=given.ca_certs,
            client_cert=given.client_cert,
            client_key=given.client_key,
            verify_certs=given.verify_certs,
            external_labels={**labels, **given.external_labels},
            headers=given.headers,
            queue_bytes=given.queue_size,
            timeout_seconds=given.request_timeout,
        )
        exporter = RemoteWriteExporter(checked, page)
    except ValueError as error:
        raise _refused("remote_write", error) from error
    own.register(remote_write_metrics(exporter))
    return exporter


def _refused(section: str, error: ValueError) -> CommandError:
    """The error by the key that was written, which has the unit in its value and not in its name."""
    name, colon, rest = str(error).partition(":")
    return CommandError(f"[{section}] {_KEYS.get(name, name)}{colon}{rest}")
