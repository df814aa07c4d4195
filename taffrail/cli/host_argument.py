"""``--host NAME=URL``, for the commands that ask several hosts; what it names is ``taffrail/hosts.py``'s to find."""

from __future__ import annotations

import argparse

__all__ = ["add_host_argument"]


def add_host_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--host``, which may be given many times; the values are for ``hosts_of``."""
    parser.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME=URL",
        help="an agent to ask, http://HOST:PORT, https:// or unix:; may be given many times, default: "
        "client.hosts of the configuration, else this host's",
    )
