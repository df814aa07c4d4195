"""What a container's log options add to its lines: labels, environment variables and a tag.

Which labels and variables are chosen is ``logdrivers/options.py``, how a tag is rendered ``logdrivers/tag.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from logdrivers.driver import Info
from logdrivers.options import extra_attributes
from logdrivers.tag import check_tag, render_tag

__all__ = ["check_attributes", "tagged_attributes"]


def check_attributes(options: Mapping[str, str]) -> None:
    """Raise OptionError, at create rather than at start, for a tag or a pattern that cannot work."""
    check_tag(options.get("tag", ""))
    extra_attributes(Info("", "", "", "", (), 0, Path(), options=options))  # compiles the patterns


def tagged_attributes(info: Info) -> dict[str, str]:
    """The labels and variables asked for, and ``tag`` if the options have one. Raises OptionError."""
    attrs = extra_attributes(info)
    if tag := info.options.get("tag"):
        attrs["tag"] = render_tag(tag, info)
    return attrs
