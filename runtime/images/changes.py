"""The Dockerfile instructions that ``docker import --change`` and ``docker commit --change`` take.

Each instruction edits an image's ``config`` object (OCI image spec, config.md, with Docker's names). Building
images is left to others.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runtime.errors import BadRequest
from runtime.images.healthcheck import parse_healthcheck

__all__ = ["apply_changes"]

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?\Z", re.IGNORECASE)
_SHELL = ["/bin/sh", "-c"]


def apply_changes(config: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The config after the changes. Raises BadRequest, naming the instruction and what it expects."""
    out = dict(config)
    for change in changes:
        word, _, rest = change.strip().partition(" ")
        apply = _INSTRUCTIONS.get(word.upper())
        if apply is None:
            raise BadRequest(f"{word.upper() or repr(change)} is not a valid change command")
        if not rest.strip() and word.upper() not in ("CMD", "ENTRYPOINT"):
            raise BadRequest(f"{word.upper()} requires at least one argument")
        apply(out, rest.strip())
    return out


def _command(text: str, config: Mapping[str, Any]) -> list[str]:
    """The exec form (a JSON array of strings) or the shell form."""
    if text.startswith("["):
        try:
            parsed = json.loads(text)
        except ValueError:
            parsed = None
        if isinstance(parsed, list) and all(isinstance(item, str) for item in parsed):
            return parsed
    return [*(config.get("Shell") or _SHELL), text] if text else []


def _cmd(config: dict[str, Any], text: str) -> None:
    config["Cmd"] = _command(text, config)


def _entrypoint(config: dict[str, Any], text: str) -> None:
    config["Entrypoint"] = _command(text, config) or None


def _pairs(instruction: str, text: str) -> list[tuple[str, str]]:
    """``k=v k2="v 2"``, or the old ``k all the rest``."""
    first = text.split(maxsplit=1)[0]
    if "=" not in first:
        key, _, value = text.partition(" ")
        if not value.strip():
            raise BadRequest(f"{instruction} must have two arguments")
        return [(key, value.strip())]
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BadRequest(f"{instruction} {text}: {error}") from error
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise BadRequest(f"Syntax error - can't find = in {word!r}. Must be of the form: name=value")
        if not key:
            raise BadRequest(f"{instruction} names can not be blank")
        pairs.append((key, value))
    return pairs


def _env(config: dict[str, Any], text: str) -> None:
    env = list(config.get("Env") or ())
    for key, value in _pairs("ENV", text):
        env = [item for item in env if item.partition("=")[0] != key] + [f"{key}={value}"]
    config["Env"] = env


def _label(config: dict[str, Any], text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs("LABEL", text))}


def _expose(config: dict[str, Any], text: str) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    for word in text.split():
        match = _PORT.match(word)
        if not match:
            raise BadRequest(f"invalid containerPort: {word}")
        first, last, protocol = int(match[1]), int(match[2] or match[1]), (match[3] or "tcp").lower()
        if not 0 < first <= last < 65536:
            raise BadRequest(f"invalid containerPort: {word}")
        ports.update({f"{port}/{protocol}": {} for port in range(first, last + 1)})
    config["ExposedPorts"] = ports


def _volume(config: dict[str, Any], text: str) -> None:
    paths = _command(text, config) if text.startswith("[") else text.split()
    config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in paths}}


def _user(config: dict[str, Any], text: str) -> None:
    config["User"] = text


def _workdir(config: dict[str, Any], text: str) -> None:
    if text.startswith("/"):
        config["WorkingDir"] = text
    else:
        config["WorkingDir"] = f"{(config.get('WorkingDir') or '').rstrip('/')}/{text}"


def _stopsignal(config: dict[str, Any], text: str) -> None:
    config["StopSignal"] = text


def _onbuild(config: dict[str, Any], text: str) -> None:
    config["OnBuild"] = [*(config.get("OnBuild") or ()), text]


def _healthcheck(config: dict[str, Any], text: str) -> None:
    config["Healthcheck"] = parse_healthcheck(text)


_INSTRUCTIONS: dict[str, Callable[[dict[str, Any], str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "LABEL": _label,
    "EXPOSE": _expose,
    "VOLUME": _volume,
    "USER": _user,
    "WORKDIR": _workdir,
    "STOPSIGNAL": _stopsignal,
    "ONBUILD": _onbuild,
    "HEALTHCHECK": _healthcheck,
}
