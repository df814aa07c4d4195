"""Merging a create request with its image's defaults, by Docker's rules; the result is what inspect shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from runtime.config import ContainerConfig, Healthcheck
from runtime.errors import BadRequest

__all__ = ["command_line", "merge_image"]


def merge_image(config: ContainerConfig, image: Mapping[str, Any]) -> ContainerConfig:
    """``config`` with everything it leaves open taken from ``Image.config``.

    Raises BadRequest (``no command specified``) if neither says what to run.
    """
    entrypoint, cmd = config.entrypoint, config.cmd
    if not entrypoint:
        cmd = cmd or tuple(image.get("Cmd") or ())
        if entrypoint is None:
            entrypoint = tuple(image.get("Entrypoint") or ())
    if entrypoint == ("",):
        entrypoint = ()
    merged = replace(
        config,
        entrypoint=entrypoint or None,
        cmd=cmd or None,
        env=_env(config.env, image.get("Env") or ()),
        labels={**(image.get("Labels") or {}), **config.labels},
        working_dir=config.working_dir or image.get("WorkingDir") or "",
        user=config.user or image.get("User") or "",
        stop_signal=config.stop_signal or image.get("StopSignal") or "",
        exposed_ports=tuple(dict.fromkeys([*config.exposed_ports, *(image.get("ExposedPorts") or ())])),
        volumes=tuple(dict.fromkeys([*config.volumes, *(image.get("Volumes") or ())])),
        healthcheck=_healthcheck(config.healthcheck, image.get("Healthcheck")),
    )
    if not command_line(merged):
        raise BadRequest("no command specified")
    return merged


def command_line(config: ContainerConfig) -> tuple[str, ...]:
    """What is executed: the entrypoint followed by the command."""
    return (config.entrypoint or ()) + (config.cmd or ())


def _env(own: Sequence[str], image: Sequence[str]) -> tuple[str, ...]:
    names = {item.partition("=")[0] for item in own}
    return (*own, *(item for item in image if item.partition("=")[0] not in names))


def _healthcheck(own: Healthcheck | None, image: Mapping[str, Any] | None) -> Healthcheck | None:
    if not image:
        return own
    theirs = Healthcheck(
        test=tuple(image.get("Test") or ()),
        interval_ns=image.get("Interval") or 0,
        timeout_ns=image.get("Timeout") or 0,
        start_period_ns=image.get("StartPeriod") or 0,
        start_interval_ns=image.get("StartInterval") or 0,
        retries=image.get("Retries") or 0,
    )
    if own is None:
        return theirs
    return Healthcheck(
        test=own.test or theirs.test,
        interval_ns=own.interval_ns or theirs.interval_ns,
        timeout_ns=own.timeout_ns or theirs.timeout_ns,
        start_period_ns=own.start_period_ns or theirs.start_period_ns,
        start_interval_ns=own.start_interval_ns or theirs.start_interval_ns,
        retries=own.retries or theirs.retries,
    )
