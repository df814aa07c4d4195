"""The whole configuration, typed: what can be set, in which section, with which default.

Values come from a TOML file, then ``TAFFRAIL_<SECTION>_<KEY>`` environment variables, then flags; later
ones win. ``taffrail/config_load.py`` reads them; docs/configuration.md is generated from these fields.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

__all__ = [
    "ClientConfig",
    "CollectorConfig",
    "Config",
    "ElasticsearchConfig",
    "EngineConfig",
    "HttpConfig",
    "InputsConfig",
    "LogConfig",
    "PathsConfig",
    "PrometheusConfig",
    "RemoteWriteConfig",
    "StoreConfig",
]

Seconds = Annotated[float, "duration"]
Bytes = Annotated[int, "size"]


def _doc(text: str) -> dict[str, str]:
    return {"doc": text}


@dataclass(frozen=True, slots=True)
class PathsConfig:
    """Roots of what is read and written."""

    run: Path = field(
        default=Path("/run/taffrail"), metadata=_doc("sockets, FIFOs, what a reboot may forget")
    )
    state: Path = field(default=Path("/var/lib/taffrail"), metadata=_doc("containers, images, the store"))
    proc: Path = field(default=Path("/proc"), metadata=_doc("the host's procfs"))
    sys: Path = field(default=Path("/sys"), metadata=_doc("the host's sysfs"))


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """The engine and its defaults for new containers."""

    runtime: str = field(default="runc", metadata=_doc("OCI runtime: a name on PATH or a path"))
    bridge: str = field(default="taffrail0", metadata=_doc("name of the default bridge"))
    subnet: str = field(default="", metadata=_doc("the default bridge's subnet; empty: a free private one"))
    log_driver: str = field(default="json-file", metadata=_doc("log driver of containers that name none"))
    log_opts: Mapping[str, str] = field(default_factory=dict, metadata=_doc("options of that log driver"))
    journal_max_bytes: Bytes = field(
        default=4 * 1024**3,
        metadata=_doc("bytes on disk of the journals of all containers before the largest give up lines"),
    )


@dataclass(frozen=True, slots=True)
class CollectorConfig:
    """What is collected on this host."""

    host: str = field(
        default_factory=socket.gethostname, metadata=_doc("this host's name in labels and documents")
    )
    engines: tuple[str, ...] = field(
        default=(),
        metadata=_doc("Engine API sockets to discover containers from; empty: ours, Docker's and podman's"),
    )
    cgroups: bool = field(
        default=True,
        metadata=_doc("find containers of any engine, pods and services by the cgroup tree, too"),
    )
    oom_log: bool = field(
        default=True,
        metadata=_doc(
            "store a line for every process the kernel kills for want of memory (reads `/dev/kmsg`)"
        ),
    )
    final_records: bool = field(
        default=False,
        metadata=_doc(
            "store a line for every container that ends: exit code, duration, CPU time, peak memory, I/O"
        ),
    )
    interval: Seconds = field(default=1.0, metadata=_doc("time between samples, 100ms to 1m"))
    groups: tuple[str, ...] = field(
        default=(),
        metadata=_doc(
            "slow groups of counters, by cAdvisor's names: a list is the whole set, names with `+` or `-` "
            "change the default (docs/metrics.md)"
        ),
    )
    group_intervals: Mapping[str, str] = field(
        default_factory=dict,
        metadata=_doc("time between readings of a slow group, by its name, like `tcp = 10s`"),
    )
    cgroup_groups: tuple[str, ...] = field(
        default=(),
        metadata=_doc(
            "slow groups read of services, slices and other bare cgroups, too, like `process`; on `/metrics` with "
            "`prometheus.all_cgroups`"
        ),
    )
    host_groups: tuple[str, ...] = field(
        default=("all",),
        metadata=_doc(
            "Node Exporter's collectors served for the host: names, `all`, `-NAME` for all but that one; "
            "empty: none, where Node Exporter itself runs"
        ),
    )
    history_max_size: Bytes = field(
        default=256 * 1024**2,
        metadata=_doc(
            "bytes on disk of the history (10 seconds for 6 hours, minutes for 7 days) before the oldest goes; "
            "0: none on disk"
        ),
    )
    process_history_max_size: Bytes = field(
        default=64 * 1024**2,
        metadata=_doc(
            "bytes on disk of the history of the busiest processes (docs/top.md) before the oldest goes; 0: none"
        ),
    )
    process_history_interval: Seconds = field(
        default=10.0, metadata=_doc("time between two looks at who is busiest, 1s to 1m")
    )
    connection_history_max_size: Bytes = field(
        default=32 * 1024**2,
        metadata=_doc(
            "bytes on disk of the history of the map of connections before the oldest goes; 0: none"
        ),
    )
    connections: bool = field(
        default=True,
        metadata=_doc("keep a map of who talks to whom: a look every 15 s at every network namespace"),
    )


@dataclass(frozen=True, slots=True)
class InputsConfig:
    """Addresses that receive log messages; empty switches an input off, port 0 takes a free port."""

    gelf: str = field(default="127.0.0.1:12201", metadata=_doc("GELF over UDP and TCP"))
    gelf_http: str = field(default="", metadata=_doc("GELF over HTTP, POST to /gelf, as 127.0.0.1:12202"))
    gelf_tls_cert: str = field(
        default="",
        metadata=_doc(
            "PEM file with the certificate of the GELF inputs: TCP and HTTP speak TLS then, UDP cannot"
        ),
    )
    gelf_tls_key: str = field(
        default="", metadata=_doc("PEM file with its key, if the certificate's file does not have it")
    )
    forward: str = field(default="127.0.0.1:24224", metadata=_doc("Fluentd's Forward protocol"))
    forward_shared_key: str = field(
        default="", metadata=_doc("key that Forward senders have to prove to know; empty: anybody may send")
    )
    forward_shared_key_file: str = field(
        default="", metadata=_doc("file with that key, read at start, instead of the key itself")
    )
    forward_users: Mapping[str, str] = field(
        default_factory=dict,
        metadata=_doc(
            "passwords by user: with any, Forward senders have to be one of them; needs a shared key"
        ),
    )
    forward_tls_cert: str = field(
        default="", metadata=_doc("PEM file with the certificate of the Forward input: it speaks TLS then")
    )
    forward_tls_key: str = field(
        default="", metadata=_doc("PEM file with its key, if the certificate's file does not have it")
    )


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """The local store of log lines."""

    max_size: Bytes = field(default=10 * 1024**3, metadata=_doc("bytes on disk before the oldest lines go"))
    max_age: Seconds = field(
        default=0.0,
        metadata=_doc("age at which lines go, while the clock is believed; 0: never for their age"),
    )


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """The page, the API and /metrics."""

    address: str = field(
        default="127.0.0.1:9480", metadata=_doc("where the page, the API and /metrics listen")
    )
    token_file: str = field(
        default="",
        metadata=_doc(
            "file with a token a line, read at start: TCP connections have to show one of them as a bearer "
            "token, or as the password of basic authentication; empty: nobody has to"
        ),
    )
    tls_cert: str = field(default="", metadata=_doc("PEM file with the certificate: TCP speaks TLS then"))
    tls_key: str = field(
        default="", metadata=_doc("PEM file with its key, if the certificate's file does not have it")
    )
    allow_insecure: bool = field(
        default=False,
        metadata=_doc("listen where other hosts can ask, without a token or without TLS: refused otherwise"),
    )


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """Agents the command line asks, beside or instead of this host's."""

    hosts: Mapping[str, str] = field(
        default_factory=dict,
        metadata=_doc(
            'agents by the name shown for them, like `alpha = "https://10.0.0.1:9480"`; `unix:` is this '
            "host's; empty: this host's alone"
        ),
    )
    token_file: str = field(
        default="", metadata=_doc("file whose first line is the token for agents on other hosts")
    )
    ca_certs: str = field(
        default="",
        metadata=_doc("file with the certificate authority of https agents; empty: the system's"),
    )


@dataclass(frozen=True, slots=True)
class RemoteWriteConfig:
    """Series to VictoriaMetrics, Mimir, Thanos or a Prometheus, by Prometheus' remote-write protocol 1.0."""

    url: str = field(
        default="", metadata=_doc("where to, like http://127.0.0.1:8428/api/v1/write; empty switches it off")
    )
    interval: Seconds = field(default=15.0, metadata=_doc("time between samples sent"))
    username: str = field(default="", metadata=_doc("user of basic authentication"))
    password_file: str = field(default="", metadata=_doc("file with its password"))
    bearer_token_file: str = field(default="", metadata=_doc("file with a bearer token, instead of a user"))
    ca_certs: str = field(default="", metadata=_doc("file with the certificate authority for https"))
    client_cert: str = field(default="", metadata=_doc("PEM file with our certificate for https"))
    client_key: str = field(
        default="", metadata=_doc("PEM file with its key, if the certificate's file does not have it")
    )
    verify_certs: bool = field(default=True, metadata=_doc("check the server's certificate"))
    external_labels: Mapping[str, str] = field(
        default_factory=dict,
        metadata=_doc(
            "labels for every series that lacks them; `job` is taffrail and `instance` is `collector.host` "
            "unless they are set here"
        ),
    )
    headers: Mapping[str, str] = field(
        default_factory=dict, metadata=_doc("further HTTP headers, like `X-Scope-OrgID`")
    )
    queue_size: Bytes = field(
        default=256 * 1024**2,
        metadata=_doc("bytes on disk of requests not yet taken before the oldest are dropped and counted"),
    )
    request_timeout: Seconds = field(default=30.0, metadata=_doc("time a request may take"))


@dataclass(frozen=True, slots=True)
class PrometheusConfig:
    """How container series look at /metrics."""

    container_labels: tuple[str, ...] = field(
        default=(),
        metadata=_doc(
            "further container labels to export, beside compose's and swarm's; `all` exports every one"
        ),
    )
    label_aliases: Mapping[str, str] = field(
        default_factory=dict,
        metadata=_doc(
            "further labels for rules written for Kubernetes: name to `name`, `image`, `id` or `label:KEY`, "
            "like `container = name`"
        ),
    )
    all_cgroups: bool = field(
        default=False,
        metadata=_doc("export services, slices, pods and other bare cgroups, too, as cAdvisor does"),
    )
    max_series: int = field(
        default=500_000, metadata=_doc("series per scrape before the rest is cut and counted")
    )


@dataclass(frozen=True, slots=True)
class ElasticsearchConfig:
    """Lines to Elasticsearch or OpenSearch."""

    hosts: tuple[str, ...] = field(default=(), metadata=_doc("URLs, http or https; empty switches it off"))
    data_stream: str = field(
        default="logs-taffrail-default", metadata=_doc("data stream the documents go to")
    )
    username: str = field(default="", metadata=_doc("user of basic authentication"))
    password: str = field(default="", metadata=_doc("its password"))
    api_key: str = field(default="", metadata=_doc("API key, instead of user and password"))
    ca_certs: str = field(default="", metadata=_doc("file with the certificate authority for https"))
    verify_certs: bool = field(default=True, metadata=_doc("check the server's certificate"))
    batch_size: Bytes = field(
        default=4 * 1024**2,
        metadata=_doc("bytes of stored lines taken at once, which become one bulk request or several"),
    )


@dataclass(frozen=True, slots=True)
class LogConfig:
    """Taffrail's own log, on standard error."""

    level: str = field(default="info", metadata=_doc("debug, info, warning or error"))
    format: str = field(default="text", metadata=_doc("text or json"))


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be set."""

    paths: PathsConfig = field(default_factory=PathsConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    collector: CollectorConfig = field(default_factory=CollectorConfig)
    inputs: InputsConfig = field(default_factory=InputsConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    client: ClientConfig = field(default_factory=ClientConfig)
    prometheus: PrometheusConfig = field(default_factory=PrometheusConfig)
    remote_write: RemoteWriteConfig = field(default_factory=RemoteWriteConfig)
    elasticsearch: ElasticsearchConfig = field(default_factory=ElasticsearchConfig)
    log: LogConfig = field(default_factory=LogConfig)
