"""Label text of a container, rendered once: which labels a series carries, under which names, escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from collector.container import Container

__all__ = ["DEFAULT_LABELS", "LabelRules", "escape", "render"]

_NOT_NAME = re.compile(r"[^a-zA-Z0-9_]")
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_IDENTITY = frozenset({"id", "name", "image"})
#: Names an alias cannot have: the container's own, those some series carry beside, and Prometheus' own.
_TAKEN = _IDENTITY | {
    *(
        "command",
        "cpu",
        "device",
        "engine",
        "event",
        "failure_type",
        "instance",
        "interface",
        "job",
        "log_driver",
        "major",
        "minor",
    ),
    *(
        "network_mode",
        "node",
        "operation",
        "pagesize",
        "port",
        "privileged",
        "quantile",
        "role",
        "scope",
        "state",
        "tcp_state",
        "type",
        "udp_state",
        "ulimit",
        "volume",
    ),
}

#: Container labels that become series labels unless configured otherwise: a label of every container on
#: every series costs memory wherever it is stored, and values may be secret.
DEFAULT_LABELS = (
    "com.docker.compose.project",
    "com.docker.compose.service",
    "com.docker.swarm.service.name",
    "com.docker.swarm.task.name",
    "com.docker.stack.namespace",
    "org.label-schema.group",
)


#: What the kubelet's own exporter adds, by the labels its runtimes give containers. Always there where a
#: container has them, for Kubernetes' dashboards and rules select by nothing else.
_KUBERNETES = {
    "container": "io.kubernetes.container.name",
    "namespace": "io.kubernetes.pod.namespace",
    "pod": "io.kubernetes.pod.name",
}


def escape(value: str) -> str:
    """A label value as text format 0.0.4 wants it between quotes."""
    if "\\" in value or '"' in value or "\n" in value:
        value = value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return value


def render(labels: Mapping[str, str]) -> str:
    """``a="1",b="2"``: labels without a value are left out, which to Prometheus means the same."""
    return ",".join(f'{name}="{escape(value)}"' for name, value in labels.items() if value)


@dataclass(frozen=True, slots=True)
class LabelRules:
    """Which of a container's labels its series carry."""

    allowed: tuple[str, ...] = DEFAULT_LABELS
    all: bool = False  #: cAdvisor's behaviour: every label
    #: Further labels: series label to ``id``, ``name``, ``image``, or ``label:<key>`` of the container.
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, source in self.aliases.items():
            if not _NAME.fullmatch(name) or name.startswith(("__", "container_label_")) or name in _TAKEN:
                raise ValueError(
                    f"label alias {name}={source}: expected letters, digits and _, not __ or container_label_ in front,"
                    f" none of {', '.join(sorted(_TAKEN))}"
                )
            if source not in _IDENTITY and not (source.startswith("label:") and len(source) > 6):
                raise ValueError(
                    f"label alias {name}={source}: expected id, name, image or label:KEY instead of {source!r}"
                )

    def of(self, container: Container) -> str:
        """The rendered labels every series of the container begins with."""
        identity = {
            "id": container.cgroup or f"/{container.engine or 'docker'}/{container.id}",
            "image": container.image,
            "name": container.name,
        }
        keys = container.labels if self.all else [key for key in self.allowed if key in container.labels]
        labels: dict[str, str] = {}
        for key in sorted(keys):
            # Two keys can become one name; the series must not carry it twice.
            labels.setdefault("container_label_" + _NOT_NAME.sub("_", key), container.labels[key])
        for name, key in _KUBERNETES.items():
            if container.labels.get(key):
                labels[name] = container.labels[key]
        for name, source in self.aliases.items():
            value = (
                container.labels.get(source[6:], "") if source.startswith("label:") else identity.get(source)
            )
            if value:
                labels.setdefault(name, value)
        return render(labels | identity)
