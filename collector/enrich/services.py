"""Which service a container belongs to: what Compose, Swarm and others say in labels.

Only reads labels; which labels are handed on is decided in ``sources.py``.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "COMPOSE_PROJECT",
    "COMPOSE_SERVICE",
    "SERVICE_LABELS",
    "SWARM_SERVICE",
    "SWARM_STACK",
    "service_of",
]

COMPOSE_PROJECT = "com.docker.compose.project"
COMPOSE_SERVICE = "com.docker.compose.service"
SWARM_SERVICE = "com.docker.swarm.service.name"
SWARM_STACK = "com.docker.stack.namespace"

#: Labels that say where a container belongs: kept whatever the allow-list says.
SERVICE_LABELS = (
    COMPOSE_PROJECT,
    COMPOSE_SERVICE,
    "com.docker.compose.container-number",
    SWARM_SERVICE,
    SWARM_STACK,
    "com.docker.swarm.task.name",
    "com.docker.swarm.node.id",
)


def service_of(labels: Mapping[str, str]) -> str:
    """The name of the container's service, the same for all its replicas; "" if it has none.

    Compose's service goes by its own name (its project is a label of its own), Swarm's by the full name
    ``stack_service`` as ``docker service ls`` shows it.
    """
    return labels.get(COMPOSE_SERVICE) or labels.get(SWARM_SERVICE) or ""
