"""What a template imports before it forks, so that shims share it: the log drivers and their libraries.

A driver that an entry point brings is imported here too, once, in the template.
"""

from __future__ import annotations

import importlib
import logging

__all__ = ["MODULES", "load"]

log = logging.getLogger(__name__)

MODULES = (
    "hashlib",
    "msgpack",
    "orjson",
    "zstandard",
    "isal.isal_zlib",
    "logdrivers.registry",
    "logdrivers.delivery",
    "logdrivers.journals.segments",
    "logdrivers.json_file",
    "logdrivers.local",
    "logdrivers.gelf",
    "logdrivers.fluentd",
    "logdrivers.syslog",
    "logdrivers.journald",
    "logdrivers.none",
)


def load() -> None:
    """Import the modules. One that cannot be imported is logged; a shim that needs it will say so."""
    for name in MODULES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            log.warning("preload %s: %s", name, error)
