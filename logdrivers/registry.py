"""The log drivers there are: ours, and those that installed packages bring as ``taffrail.log_drivers``."""

from __future__ import annotations

import logging
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from logdrivers.driver import Driver, OptionError
from logdrivers.fluentd import FluentdDriver
from logdrivers.gelf import GelfDriver
from logdrivers.journald import JournaldDriver
from logdrivers.json_file import JsonFileDriver
from logdrivers.local import LocalDriver
from logdrivers.none import NoneDriver
from logdrivers.syslog import SyslogDriver

__all__ = ["BUILTIN", "ENTRY_POINTS", "get", "names"]

_log = logging.getLogger(__name__)

#: A new driver of ours is one more line here.
BUILTIN: tuple[type[Driver], ...] = (
    JsonFileDriver,
    LocalDriver,
    GelfDriver,
    FluentdDriver,
    SyslogDriver,
    JournaldDriver,
    NoneDriver,
)
#: The entry point group; each entry names a class that is a Driver and is called without arguments.
ENTRY_POINTS = "taffrail.log_drivers"


def get(name: str) -> Driver:
    """The driver of this name; "" is the default, json-file.

    Raises OptionError in Docker's words for one that is not there, and for a plugin that does not load.
    """
    for driver in BUILTIN:
        if driver.name == (name or "json-file"):
            return driver()
    entry = _plugins().get(name)
    if entry is None:
        raise OptionError(f"logger: no log driver named '{name}' is registered")
    try:
        loaded: Driver = entry.load()()
    except Exception as error:
        _log.exception("loading log driver %s from %s failed", name, entry.value)
        raise OptionError(f"log driver '{name}' ({entry.value}) did not load: {error}") from error
    return loaded


def names() -> list[str]:
    """All names ``get`` takes, sorted."""
    return sorted({driver.name for driver in BUILTIN} | set(_plugins()))


@cache
def _plugins() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
