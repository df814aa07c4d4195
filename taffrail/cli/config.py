"""``taffrail config``: the configuration in force, as the TOML that would make it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import orjson

from taffrail.config import Config

__all__ = ["add_arguments", "render", "run"]

_SECRET = ("password", "api_key", "forward_shared_key", "forward_users")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--docs`` prints the reference table of docs/configuration.md instead."""
    parser.add_argument(
        "--docs", action="store_true", help="print every key with its default and meaning, as Markdown"
    )


def run(args: argparse.Namespace, config: Config) -> int:
    """Print the configuration, secrets hidden."""
    print(render_docs() if args.docs else render(config), end="")
    return 0


def render(config: Config) -> str:
    """TOML of every key; a secret that is set shows as ``********``."""
    lines: list[str] = []
    for section in fields(Config):
        values = getattr(config, section.name)
        lines.append(f"[{section.name}]")
        for key in fields(values):
            value = getattr(values, key.name)
            lines.append(f"{key.name} = {_toml('********' if key.name in _SECRET and value else value)}")
        lines.append("")
    return "\n".join(lines)


def render_docs() -> str:
    """The reference of every key, a table per section."""
    lines: list[str] = []
    defaults = Config()
    for section in fields(Config):
        values = getattr(defaults, section.name)
        lines += [
            f"## [{section.name}]",
            "",
            (type(values).__doc__ or "").strip(),
            "",
            "| key | default | meaning |",
        ]
        lines.append("|---|---|---|")
        for key in fields(values):
            value = getattr(values, key.name)
            shown = (
                "this host's name"
                if (section.name, key.name) == ("collector", "host")
                else f"`{_toml(value)}`"
            )
            lines.append(f"| `{key.name}` | {shown} | {key.metadata['doc']} |")
        lines.append("")
    return "\n".join(lines)


def _toml(value: object) -> str:
    """A TOML literal; JSON's text and number forms are TOML's too."""
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(text)}" for key, text in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return orjson.dumps(value).decode()
