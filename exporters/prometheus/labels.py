"""Label text of a container, rendered once: which labels a series carries, under which names, escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from collector.container import Container

__all__ = ["DEFAULT_LABELS", "LabelRules", "escape", "render"]

_NOT_NAME = re.compile(r"[^a-zA-Z0-9_]")

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
        for name, source in self.aliases.items():
            value = (
                container.labels.get(source[6:], "") if source.startswith("label:") else identity.get(source)
            )
            if value and name not in identity:
                labels[name] = value
        return render(labels | identity)
