"""What a Docker Engine asks a log plugin for, as values: StartLogging, StopLogging and ReadLogs.

Which of our drivers a container wants is its log option ``sink``; every other option is that driver's.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from logdrivers.codecs.json_file import parse_time
from logdrivers.driver import Info, OptionError
from logdrivers.registry import get, names
from logdrivers.source.options import parse_source

__all__ = ["SINK_OPTION", "ReadConfig", "RequestError", "Wanted", "parse_body", "parse_info"]

#: The log option that names the driver; without it lines stay on the host, in json-file's form.
SINK_OPTION = "sink"
DEFAULT_SINK = "json-file"


class RequestError(ValueError):
    """A request that is not what the protocol says."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A container and the driver it asks for. ``info.directory`` is still to be filled in."""

    driver: str
    info: Info


@dataclass(frozen=True, slots=True)
class ReadConfig:
    """What ``docker logs`` asks for. Times are nanoseconds since the epoch, 0 for no bound."""

    since_ns: int = 0
    until_ns: int = 0
    tail: int | None = None  #: lines from the end; None for all
    follow: bool = False

    @classmethod
    def parse(cls, value: object) -> ReadConfig:
        """From the request's ``Config``. Raises RequestError."""
        config = value if isinstance(value, dict) else {}
        tail = config.get("Tail", -1)
        if not isinstance(tail, int):
            raise RequestError(f"Config.Tail is {tail!r}, expected a number")
        return cls(
            _time(config, "Since"),
            _time(config, "Until"),
            tail if tail >= 0 else None,
            bool(config.get("Follow")),
        )


def parse_body(body: bytes) -> dict[str, Any]:
    """The JSON object of a request. Raises RequestError."""
    if not body:
        # What Docker Engine sends when it repeats a request after the connection broke.
        raise RequestError("the log plugin was restarting and got the request without its content: try again")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the request is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise RequestError("the request is no JSON object")
    return value


def parse_info(value: object, directory: Path) -> Wanted:
    """The container of a request's ``Info``, its options validated by the driver it asks for.

    ``directory`` is where containers' directories are. Raises RequestError, or OptionError in the words of
    the driver.
    """
    if not isinstance(value, dict):
        raise RequestError("no Info in the request")
    container_id = value.get("ContainerID")
    if not isinstance(container_id, str) or not container_id.isalnum() or not container_id.isascii():
        raise RequestError(f"ContainerID is {container_id!r}, expected letters and digits")
    options = _texts(value, "Config")
    sink = options.pop(SINK_OPTION, DEFAULT_SINK)
    if sink not in names():
        raise OptionError(f"no sink '{sink}', expected one of {', '.join(names())}")
    labels = _texts(value, "ContainerLabels")
    get(sink).validate(options)
    parse_source(options, labels)
    info = Info(
        container_id=container_id,
        container_name=_text(value, "ContainerName"),
        image_id=_text(value, "ContainerImageID"),
        image_name=_text(value, "ContainerImageName"),
        command=(_text(value, "ContainerEntrypoint"), *_list(value, "ContainerArgs")),
        created_ns=_time(value, "ContainerCreated"),
        directory=directory / container_id / "log",
        options=options,
        labels=labels,
        env=dict(item.partition("=")[::2] for item in _list(value, "ContainerEnv") if "=" in item),
        hostname=socket.gethostname(),
        daemon_name=_text(value, "DaemonName") or "docker",
    )
    return Wanted(sink, info)


def _text(value: Mapping[str, Any], key: str) -> str:
    text = value.get(key) or ""
    if not isinstance(text, str):
        raise RequestError(f"{key} is {text!r}, expected a text")
    return text


def _list(value: Mapping[str, Any], key: str) -> list[str]:
    items = value.get(key) or []
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise RequestError(f"{key} is {items!r}, expected a list of texts")
    return items


def _texts(value: Mapping[str, Any], key: str) -> dict[str, str]:
    items = value.get(key) or {}
    if not isinstance(items, dict) or not all(isinstance(item, str) for item in items.values()):
        raise RequestError(f"{key} is {items!r}, expected texts by name")
    return dict(items)


def _time(value: Mapping[str, Any], key: str) -> int:
    """Nanoseconds since the epoch; 0 for none, which Go writes as the year 1."""
    text = _text(value, key)
    if not text:
        return 0
    try:
        return max(0, parse_time(text.encode()))
    except (ValueError, OverflowError) as error:
        raise RequestError(f"{key} is {text!r}, expected an RFC 3339 time") from error
