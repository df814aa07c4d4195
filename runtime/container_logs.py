"""The engine's side of container logs: which driver, with which options, and reading what it keeps.

Lines are written by the shims; here a driver is chosen and checked when a container is created, described to
(``Info``), and asked for its journal when somebody wants to read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from logdrivers import json_file, registry
from logdrivers.driver import Driver, Info, OptionError
from logdrivers.journal import JournalReader
from logdrivers.source.options import parse_source
from runtime.config import LogConfig
from runtime.errors import BadRequest, NotImplementedYet, ServerError
from runtime.options import EngineOptions
from runtime.state import ContainerDirectories

if TYPE_CHECKING:
    from runtime.container import Container

__all__ = ["ContainerLogs"]


class ContainerLogs:
    """Log drivers of one engine's containers. Raises BadRequest for a default that is refused."""

    def __init__(self, options: EngineOptions, directories: ContainerDirectories, host_name: str) -> None:
        self._default = LogConfig(options.default_log_driver, options.default_log_options)
        self._directories = directories
        self._host_name = host_name
        self.choose(self._default)

    def drivers(self) -> Sequence[str]:
        """Log drivers that a container may name."""
        return registry.names()

    def choose(self, asked: LogConfig, labels: Mapping[str, str] | None = None) -> tuple[str, dict[str, str]]:
        """Driver and options of a new container; the engine's options hold for the engine's driver only.

        Raises BadRequest in the driver's words, and for one of its ``labels`` that asks for what cannot be.
        """
        name = asked.type or self._default.type
        defaults = self._default.config if name == self._default.type else {}
        options = {**defaults, **asked.config}
        try:
            registry.get(name).validate(options)
            parse_source(options, labels)
        except OptionError as error:
            raise BadRequest(str(error)) from error
        return name, options

    def info(self, container: Container) -> Info:
        """What the container's driver may know."""
        definition = container.definition
        return Info(
            container_id=container.id,
            container_name=container.name,
            image_id=definition.image_id,
            image_name=definition.config.image,
            command=(definition.path, *definition.args),
            created_ns=definition.created_ns,
            directory=self._directories.path(container.id),
            options=definition.log_options,
            labels=definition.labels,
            env=dict(item.partition("=")[::2] for item in definition.config.env if "=" in item),
            hostname=self._host_name,
        )

    def path(self, container: Container) -> str:
        """``LogPath``: json-file's current file, "" for every other driver."""
        if container.definition.log_driver != "json-file":
            return ""
        return str(json_file.log_path(self.info(container)))

    def attributes(self, container: Container) -> Mapping[str, str]:
        """What ``docker logs --details`` shows for lines that do not carry their attributes."""
        info = self.info(container)
        out: dict[str, str] = {}
        for option, values in (("labels", info.labels), ("env", info.env)):
            wanted = info.options.get(option, "").split(",")
            out |= {key: values[key] for key in wanted if key in values}
        return out

    def driver(self, container: Container) -> Driver:
        """The container's driver. Raises ServerError if it is no longer installed."""
        try:
            return registry.get(container.definition.log_driver)
        except OptionError as error:
            raise ServerError(str(error)) from error

    def reader(self, container: Container) -> JournalReader:
        """The container's journal. Raises NotImplementedYet where the driver keeps none."""
        reader = self.driver(container).reader(self.info(container))
        if reader is None:
            raise NotImplementedYet("configured logging driver does not support reading")
        return reader
