"""The log drivers there are: ours, and those that installed packages bring as ``taffrail.log_drivers``."""

from __future__ import annotations

import importlib
import logging
from functools import cache
from typing import TYPE_CHECKING

from logdrivers.driver import Driver, OptionError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["BUILTIN", "ENTRY_POINTS", "builtin", "get", "known", "names"]

_log = logging.getLogger(__name__)

#: Our drivers by name: module and class, imported when one is asked for. A new one is one more line here.
BUILTIN: dict[str, tuple[str, str]] = {
    "json-file": ("logdrivers.json_file", "JsonFileDriver"),
    "local": ("logdrivers.local", "LocalDriver"),
    "gelf": ("logdrivers.gelf", "GelfDriver"),
    "fluentd": ("logdrivers.fluentd", "FluentdDriver"),
    "syslog": ("logdrivers.syslog", "SyslogDriver"),
    "journald": ("logdrivers.journald", "JournaldDriver"),
    "none": ("logdrivers.none", "NoneDriver"),
}
#: The entry point group; each entry names a class that is a Driver and is called without arguments.
ENTRY_POINTS = "taffrail.log_drivers"


def get(name: str) -> Driver:
    """The driver of this name; "" is the default, json-file.

    Raises OptionError in Docker's words for one that is not there, and for a plugin that does not load.
    """
    if (name or "json-file") in BUILTIN:
        return builtin(name or "json-file")()
    entry = _plugins().get(name)
    if entry is None:
        raise OptionError(f"logger: no log driver named '{name}' is registered")
    try:
        loaded: Driver = entry.load()()
    except Exception as error:
        _log.exception("loading log driver %s from %s failed", name, entry.value)
        raise OptionError(f"log driver '{name}' ({entry.value}) did not load: {error}") from error
    return loaded


def builtin(name: str) -> type[Driver]:
    """One of ours. Raises KeyError for a name that is not in ``BUILTIN``."""
    module, attribute = BUILTIN[name]
    driver: type[Driver] = getattr(importlib.import_module(module), attribute)
    return driver


def known(name: str) -> bool:
    """Whether ``get`` takes this name."""
    return name in BUILTIN or name in _plugins()


def names() -> list[str]:
    """All names ``get`` takes, sorted."""
    return sorted({*BUILTIN, *_plugins()})


@cache
def _plugins() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # memory that whoever uses ours alone is spared

    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
