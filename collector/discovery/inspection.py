"""What an engine says of a container, as our ``Container``: inspect answers and events, pure functions.

The formats are the Docker Engine API's (v1.24 to v1.47 agree on what is read here); podman's compatible
API differs in some words, which are taken too. Asking and listening are ``engine_api.py``'s.
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from collector.container import Container, LogSource

__all__ = [
    "Event",
    "container_of_event",
    "engine_name",
    "image_id",
    "parse_event",
    "parse_inspect",
    "parse_time",
]

_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))")

#: Attributes of events that are not labels of the container.
_NOT_LABELS = frozenset(
    {"image", "name", "exitCode", "containerExitCode", "signal", "execID", "execDuration", "oldName"}
)


@dataclass(frozen=True, slots=True)
class Event:
    """One event of an engine that concerns a container."""

    action: str  #: Docker's word without what follows a colon: ``start``, ``die``, ``health_status``
    container_id: str
    time_ns: int
    name: str  #: "" for events of a network
    image: str
    exit_code: int | None
    attributes: Mapping[str, str]


def parse_time(text: str) -> int:
    """An RFC 3339 time as nanoseconds since the epoch; Docker's zero time and "" are 0."""
    if not text:
        return 0
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"time {text!r}: expected RFC 3339, as 2026-01-02T03:04:05.678Z")
    year, month, day, hour, minute, second, fraction, sign, off_hours, off_minutes = match.groups()
    if int(year) < 1970:
        return 0
    seconds = timegm((int(year), int(month), int(day), int(hour), int(minute), int(second)))
    if sign:
        offset = int(off_hours) * 3600 + int(off_minutes) * 60
        seconds -= offset if sign == "+" else -offset
    return seconds * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))


def image_id(digits: str) -> str:
    """An image's id as Docker writes it; what is no bare digest is left as it is."""
    return f"sha256:{digits}" if len(digits) == 64 else digits


def engine_name(version: Mapping[str, Any]) -> str:
    """``taffrail``, ``podman`` or ``docker``, from the answer to ``/version``."""
    names = [str((version.get("Platform") or {}).get("Name", "")), str(version.get("Name", ""))]
    names += [str(component.get("Name", "")) for component in version.get("Components") or []]
    text = " ".join(names).lower()
    for name in ("taffrail", "podman"):
        if name in text:
            return name
    return "docker"


def parse_event(line: bytes) -> Event | None:
    """One line of ``/events``; None for what concerns no container. Raises ValueError on other text."""
    event = orjson.loads(line)
    if not isinstance(event, dict):
        raise ValueError(f"event {line[:60]!r}: expected a JSON object")
    actor = event.get("Actor") or {}
    attributes: dict[str, str] = actor.get("Attributes") or {}
    kind = event.get("Type", "container")
    action = str(event.get("Action") or event.get("status") or "").partition(":")[0].strip()
    container_id = str(actor.get("ID") or event.get("id") or "")
    if kind == "network" and action in ("connect", "disconnect"):
        container_id = attributes.get("container", "")
        attributes = {}
    elif kind != "container":
        return None
    if not container_id or not action:
        return None
    code = attributes.get("exitCode") or attributes.get("containerExitCode")
    return Event(
        action,
        container_id,
        int(event.get("timeNano") or int(event.get("time") or 0) * 1_000_000_000),
        attributes.get("name", "").removeprefix("/"),
        attributes.get("image", ""),
        int(code) if code and code.lstrip("-").isdigit() else None,
        attributes,
    )


def container_of_event(event: Event, engine: str) -> Container:
    """What an event alone tells, for a container too short-lived to be inspected."""
    return Container(
        id=event.container_id,
        name=event.name,
        image=event.image,
        engine=engine,
        state="created",
        created_ns=event.time_ns if event.action == "create" else 0,
        labels={key: value for key, value in event.attributes.items() if key not in _NOT_LABELS},
    )


def parse_inspect(answer: Mapping[str, Any], engine: str, cgroup: str = "") -> Container:
    """The answer to ``/containers/ID/json``. Raises ValueError naming what is missing or malformed."""
    try:
        return _container(answer, engine, cgroup)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"inspect answer for {str(answer.get('Id'))[:12]}: expected Docker's fields, {error!r}"
        ) from error


def _container(answer: Mapping[str, Any], engine: str, cgroup: str) -> Container:
    state = answer["State"]
    config = answer.get("Config") or {}
    host = answer.get("HostConfig") or {}
    status = _status(state)
    running = status in ("running", "paused")
    # Docker calls a container that has ended unhealthy; nobody probes it, so we say nothing.
    health = (state.get("Health") or state.get("Healthcheck") or {}).get("Status") or "" if running else ""
    return Container(
        id=str(answer["Id"]),
        name=str(answer["Name"]).removeprefix("/"),
        image=str(config.get("Image") or answer.get("ImageName") or ""),
        image_id=str(answer.get("Image") or ""),
        engine=engine,
        state=status,
        pid=int(state.get("Pid") or 0) if running else 0,
        # Ours says where it put it: that outlives a first process nobody was quick enough to look at.
        cgroup=cgroup or (str((answer.get("Taffrail") or {}).get("CgroupPath") or "") if running else ""),
        network_mode=str(host.get("NetworkMode") or ""),
        privileged=bool(host.get("Privileged")),
        created_ns=parse_time(str(answer.get("Created") or "")),
        started_ns=parse_time(str(state.get("StartedAt") or "")),
        finished_ns=0 if running else parse_time(str(state.get("FinishedAt") or "")),
        exit_code=None if running or status == "created" else int(state.get("ExitCode") or 0),
        oom_killed=bool(state.get("OOMKilled")),
        restarts=int(answer.get("RestartCount") or 0),
        health="" if health in ("none", "") else str(health),
        labels=dict(config.get("Labels") or {}),
        networks=tuple((answer.get("NetworkSettings") or {}).get("Networks") or ()),
        memory_limit_bytes=max(int(host.get("Memory") or 0), 0),
        cpu_shares=int(host.get("CpuShares") or 1024),
        log=_log_source(answer, host),
    )


def _status(state: Mapping[str, Any]) -> str:
    """Docker's word; old engines and podman are brought to it."""
    status = str(state.get("Status") or "").lower()
    words = {"configured": "created", "initialized": "created", "stopped": "exited", "stopping": "running"}
    if status:
        return words.get(status, status)
    if state.get("Paused"):
        return "paused"
    return "running" if state.get("Running") else "exited"


def _log_source(answer: Mapping[str, Any], host: Mapping[str, Any]) -> LogSource:
    config = host.get("LogConfig") or {}
    own = answer.get("Taffrail") or {}
    return LogSource(
        driver=str(config.get("Type") or ""),
        path=str(answer.get("LogPath") or config.get("Path") or ""),
        directory=str(own.get("LogDirectory") or ""),
        options=dict(config.get("Config") or {}),
    )
