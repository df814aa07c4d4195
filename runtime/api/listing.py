"""Containers as ``docker ps`` lists them: which ones, in which order, with which fields."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runtime.api.durations import human_duration
from runtime.api.endpoints import network_mode, network_settings, ports
from runtime.errors import BadRequest
from runtime.health import STARTING
from runtime.state import State, Status

if TYPE_CHECKING:
    from runtime.container import Container
    from runtime.engine import Engine

__all__ = ["listing", "select", "status_text"]

_STATES = tuple(status.value for status in Status)


def listing(
    engine: Engine, filters: Mapping[str, Sequence[str]], *, everything: bool, limit: int, size: bool
) -> list[dict[str, Any]]:
    """The answer of ``GET /containers/json``, newest first."""
    if "status" in filters or "exited" in filters or limit > 0:
        everything = True
    chosen = [c for c in select(engine, filters, engine.containers.all()) if everything or c.active]
    chosen.sort(key=lambda c: c.definition.created_ns, reverse=True)
    if limit > 0:
        chosen = chosen[:limit]
    return [_summary(engine, c, size=size) for c in chosen]


def _summary(engine: Engine, container: Container, *, size: bool) -> dict[str, Any]:
    definition = container.definition
    settings = network_settings(engine, container)
    body = {
        "Id": container.id,
        "Names": [container.name],
        "Image": engine.shown_image(container),
        "ImageID": definition.image_id,
        "Command": " ".join((definition.path, *definition.args)),
        "Created": definition.created_ns // 1_000_000_000,
        "Ports": ports(engine, container),
        "Labels": dict(definition.labels),
        "State": container.state.status.value,
        "Status": status_text(container.state, time.time_ns(), container.health.status),
        "HostConfig": {"NetworkMode": network_mode(container)},
        "NetworkSettings": {"Networks": settings["Networks"]},
        "Mounts": [mount.render() for mount in definition.mounts],
    }
    if size:
        rootfs = engine.rootfs(container)
        written = rootfs.size_rw_bytes()
        body |= {"SizeRw": written, "SizeRootFs": written + engine.image_size(definition.image_id)}
    return body


def status_text(state: State, now_ns: int, health: str = "none") -> str:
    """``Up 5 seconds (healthy)``, ``Exited (137) 2 minutes ago``; the words are Docker's."""
    match state.status:
        case Status.RUNNING:
            note = {"none": "", STARTING: " (health: starting)"}.get(health, f" ({health})")
            return f"Up {human_duration(now_ns - state.started_ns)}{note}"
        case Status.PAUSED:
            return f"Up {human_duration(now_ns - state.started_ns)} (Paused)"
        case Status.RESTARTING:
            return f"Restarting ({state.exit_code}) {human_duration(now_ns - state.finished_ns)} ago"
        case Status.REMOVING:
            return "Removal In Progress"
        case Status.DEAD:
            return "Dead"
        case Status.EXITED if state.finished_ns:
            return f"Exited ({state.exit_code}) {human_duration(now_ns - state.finished_ns)} ago"
        case _:
            return "Created"


def select(
    engine: Engine, filters: Mapping[str, Sequence[str]], containers: Iterable[Container]
) -> list[Container]:
    """The containers that pass every filter; within one filter any value is enough (labels: all)."""
    tests = [_test(engine, key, values) for key, values in filters.items() if values]
    return [c for c in containers if all(test(c) for test in tests)]


def _test(engine: Engine, key: str, values: Sequence[str]) -> Any:
    match key:
        case "id":
            return lambda c: any(c.id.startswith(v) or re.search(v, c.id) for v in values)
        case "name":
            patterns = [_pattern(v) for v in values]
            return lambda c: any(p.search(c.name) or p.search(c.name[1:]) for p in patterns)
        case "label":
            return lambda c: all(_has_label(c.definition.labels, v) for v in values)
        case "status":
            _check(key, values, _STATES)
            return lambda c: c.state.status.value in values
        case "exited":
            codes = [_integer(key, v) for v in values]
            return lambda c: not c.active and c.state.finished_ns > 0 and c.state.exit_code in codes
        case "ancestor":
            return lambda c: any(_descends(engine, c, v) for v in values)
        case "before":
            newest = max(engine.containers.get(v).definition.created_ns for v in values)
            return lambda c: c.definition.created_ns < newest
        case "since":
            oldest = min(engine.containers.get(v).definition.created_ns for v in values)
            return lambda c: c.definition.created_ns > oldest
        case "volume":
            return lambda c: any(v in (m.name, m.destination) for m in c.definition.mounts for v in values)
        case "network":
            return lambda c: any(_on_network(engine, c, v) for v in values)
        case "health":
            _check(key, values, ("starting", "healthy", "unhealthy", "none"))
            return lambda c: c.health.status in values
        case "is-task":
            return lambda c: any(v in ("false", "0") for v in values)
        case "publish" | "expose":
            return lambda c: any(_has_port(c, key, v) for v in values)
        case "isolation":
            return lambda c: True
        case _:
            raise BadRequest(f"invalid filter '{key}'")


def _pattern(value: str) -> re.Pattern[str]:
    try:
        return re.compile(value)
    except re.error as error:
        raise BadRequest(f"invalid filter 'name={value}': {error}") from None


def _integer(key: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise BadRequest(f"invalid filter '{key}={value}': expected an exit code") from None


def _check(key: str, values: Sequence[str], allowed: Sequence[str]) -> None:
    for value in values:
        if value not in allowed:
            raise BadRequest(f"invalid filter '{key}={value}': expected one of {', '.join(allowed)}")


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, sep, value = wanted.partition("=")
    return key in labels and (not sep or labels[key] == value)


def _descends(engine: Engine, container: Container, reference: str) -> bool:
    image = engine.find_image(reference)
    return container.definition.config.image == reference or (
        image is not None and image.id == container.image_id
    )


def _on_network(engine: Engine, container: Container, reference: str) -> bool:
    endpoints = network_settings(engine, container)["Networks"]
    return any(
        reference == name or (e["NetworkID"] or "-").startswith(reference) for name, e in endpoints.items()
    )


def _has_port(container: Container, key: str, wanted: str) -> bool:
    port, _, protocol = wanted.partition("/")
    name = f"{port}/{protocol or 'tcp'}"
    if key == "publish":
        return any(
            name == inside or any(binding.host_port == port for binding in bindings)
            for inside, bindings in container.definition.config.host.port_bindings.items()
        )
    return name in container.definition.config.exposed_ports
