"""Reads the configuration: TOML file, environment, flags, into one typed ``Config``.

A key nobody knows is refused with the nearest one that exists; a value of the wrong type is refused with
the place it came from and what was expected. Nothing is silently ignored.
"""

from __future__ import annotations

import math
import os
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from taffrail.config import Config
from taffrail.config_checks import refusals
from taffrail.invocation import COMMAND_VARIABLE
from taffrail.units import parse_duration, parse_size

__all__ = ["DEFAULT_FILE", "ConfigError", "load"]

#: Read when it exists and no other file is named.
DEFAULT_FILE = Path("/etc/taffrail/taffrail.toml")

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class ConfigError(ValueError):
    """The configuration is refused; the text says where and what was expected."""


def load(
    file: Path | None = None, environ: Mapping[str, str] | None = None, settings: Sequence[str] = ()
) -> Config:
    """The configuration from ``file`` (or the default file), the environment and ``section.key=value`` settings.

    Raises ConfigError.
    """
    environ = os.environ if environ is None else environ
    named = file or (Path(environ["TAFFRAIL_CONFIG"]) if environ.get("TAFFRAIL_CONFIG") else None)
    values = _from_file(named or DEFAULT_FILE, required=named is not None)
    for name, text in environ.items():
        if name.startswith("TAFFRAIL_") and name not in ("TAFFRAIL_CONFIG", COMMAND_VARIABLE):
            section, key = _section_and_key(name.removeprefix("TAFFRAIL_").lower())
            _put(values, section, key, text, f"environment variable {name}")
    for setting in settings:
        path, equals, text = setting.partition("=")
        section, dot, key = path.strip().partition(".")
        if not equals or not dot:
            raise ConfigError(
                f"setting {setting!r}: expected SECTION.KEY=VALUE, like http.address=127.0.0.1:0"
            )
        _put(values, section, key, text, f"setting {setting!r}")
    return _build(values)


def _section_and_key(name: str) -> tuple[str, str]:
    """Both from ``remote_write_url``; a section's name may have a ``_``, too."""
    for known in fields(Config):
        if name.startswith(f"{known.name}_"):
            return known.name, name.removeprefix(f"{known.name}_")
    section, _, key = name.partition("_")
    return section, key


def _from_file(file: Path, *, required: bool) -> dict[tuple[str, str], tuple[object, str]]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        if required:
            raise ConfigError(f"configuration file {file}: no such file") from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {file}: {error}") from error
    import tomllib  # as difflib below: memory that is spared where it is of no use

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"configuration file {file}: {error}") from error
    values: dict[tuple[str, str], tuple[object, str]] = {}
    for section, table in document.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{file}: {section!r} stands outside a section; sections are {_names(Config)}")
        for key, value in table.items():
            _put(values, section, key, value, f"{file}: [{section}] {key}")
    return values


def _put(
    values: dict[tuple[str, str], tuple[object, str]], section: str, key: str, value: object, where: str
) -> None:
    sections = {f.name: f.default_factory for f in fields(Config)}
    if section not in sections:
        raise ConfigError(f"{where}: no section {section!r}{_nearest(section, sections)}")
    known = [f.name for f in fields(get_type_hints(Config)[section])]
    key, _, entry = key.partition(".") if key not in known else (key, "", "")
    if key not in known:
        raise ConfigError(f"{where}: no key {key!r} in section {section!r}{_nearest(key, known)}")
    if entry:  # one entry of a table: engine.log_opts.max-size=10m
        table, before = values.get((section, key), ({}, where))
        value = {**_entries(table, before), entry: value}
    values[section, key] = (value, where)


def _entries(table: object, where: str) -> Mapping[str, str]:
    try:
        return _table(table)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def _nearest(word: str, known: object) -> str:
    import difflib

    names = sorted(known)  # type: ignore[call-overload]
    close = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(names)}"


def _names(kind: type) -> str:
    return ", ".join(f.name for f in fields(kind))


def _build(values: dict[tuple[str, str], tuple[object, str]]) -> Config:
    sections: dict[str, Any] = {}
    kind: type
    for name, kind in get_type_hints(Config).items():
        hints = get_type_hints(kind, include_extras=True)
        given = {
            key: _convert(value, hints[key], where)
            for (section, key), (value, where) in values.items()
            if section == name
        }
        sections[name] = kind(**given)
    config = Config(**sections)
    for refusal in refusals(config):
        raise ConfigError(refusal)
    if config.collector.groups or config.collector.group_intervals:
        from collector.lanes.groups import choose as choose_groups
        from collector.lanes.groups import make  # memory that few commands need
        from collector.roots import Roots
        from taffrail.lanes import intervals

        key = "groups"
        try:
            chosen = choose_groups(config.collector.groups)
            key = "group_intervals"
            make(Roots(), chosen, intervals(config.collector.group_intervals))
        except ValueError as error:
            raise ConfigError(f"[collector] {key}: {error}") from error
    if config.collector.cgroup_groups:
        from collector.lanes.groups import choose_for_cgroups

        try:
            choose_for_cgroups(config.collector.cgroup_groups)
        except ValueError as error:
            raise ConfigError(f"[collector] cgroup_groups: {error}") from error
    if config.collector.host_groups not in ((), ("all",)):
        from collector.host.collection import choose  # memory that few commands need

        try:
            choose(config.collector.host_groups)
        except ValueError as error:
            raise ConfigError(f"[collector] host_groups: {error}") from error
    if config.prometheus.label_aliases:
        from exporters.prometheus.labels import LabelRules  # memory that few commands need

        try:
            LabelRules(aliases=config.prometheus.label_aliases)
        except ValueError as error:
            raise ConfigError(f"[prometheus] label_aliases: {error}") from error
    return config


def _convert(value: object, hint: Any, where: str) -> object:
    """``value`` as the type a field declares; text (environment, flags) is parsed, TOML's types are checked."""
    unit = ""
    if get_origin(hint) is Annotated:
        hint, unit = get_args(hint)
    try:
        return _CONVERT[unit or get_origin(hint) or hint](value)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r}: expected text")
    return value


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUE + _FALSE:
        return value.lower() in _TRUE
    raise TypeError(f"{value!r}: expected true or false")


def _integer(value: object) -> int:
    text = "" if isinstance(value, bool) or not isinstance(value, int | str) else str(value)
    if not (text.isascii() and text.isdigit()):
        raise TypeError(f"{value!r}: expected a whole number, 0 or more")
    return int(text)


def _words(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return tuple(value)
    raise TypeError(f"{value!r}: expected a list of texts")


def _table(value: object) -> Mapping[str, str]:
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.split(",") if part]
        if any(not equals for _, equals, _ in pairs):
            raise TypeError(f"{value!r}: expected KEY=VALUE,KEY=VALUE")
        return types.MappingProxyType({key.strip(): text for key, _, text in pairs})
    if isinstance(value, dict):
        return types.MappingProxyType({str(key): _text(text) for key, text in value.items()})
    raise TypeError(f"{value!r}: expected a table of texts")


def _duration(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        seconds = parse_duration(_text(value))
    if not 0 <= seconds < math.inf:  # TOML knows -1, inf and nan
        raise ValueError(f"{value!r}: expected a time of 0 or more")
    return seconds


def _size(value: object) -> int:
    size = value if isinstance(value, int) and not isinstance(value, bool) else parse_size(_text(value))
    if size < 0:
        raise ValueError(f"{value!r}: expected a size of 0 or more")
    return size


_CONVERT: dict[Any, Any] = {
    str: _text,
    bool: _boolean,
    int: _integer,
    Path: lambda value: Path(_text(value)),
    tuple: _words,
    Mapping: _table,
    "duration": _duration,
    "size": _size,
}
