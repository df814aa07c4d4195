"""``taffrail dashboards``: push the dashboard to a Grafana, or write dashboards and rules to a directory."""

from __future__ import annotations

import argparse
import os

from taffrail.config import Config

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``push`` needs Grafana's address and a token; ``write`` a directory."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    push = actions.add_parser("push", help="put dashboard and data source into a Grafana")
    push.add_argument("--grafana", default="http://127.0.0.1:3000", metavar="URL", help="Grafana's address")
    push.add_argument(
        "--user", default="", metavar="USER:PASSWORD", help="instead of the token in GRAFANA_TOKEN"
    )
    push.add_argument(
        "--prometheus", default="", metavar="URL", help="also make a data source for this Prometheus"
    )
    push.add_argument("--folder", default="", help="title of the folder to put it in")
    write = actions.add_parser("write", help="write the dashboard's JSON and the alert rules to a directory")
    write.add_argument("directory")


def run(args: argparse.Namespace, config: Config) -> int:
    """Push or write."""
    from pathlib import Path

    from dashboards.grafana.docker_and_system import FILE
    from dashboards.provision import PushError, push
    from taffrail.errors import CommandError

    if args.action == "write":
        rules = FILE.parent.parent / "alerts" / "containers.yml"
        for file in (FILE, rules):
            target = Path(args.directory) / file.name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
            except OSError as error:
                raise CommandError(f"cannot write {target}: {error}") from error
            print(target)
        return 0
    user, colon, password = args.user.partition(":")
    auth: str | tuple[str, str] = (user, password) if colon else os.environ.get("GRAFANA_TOKEN", "")
    if not auth:
        raise CommandError(
            "no credentials: set GRAFANA_TOKEN to a service account token, or give --user USER:PASSWORD"
        )
    try:
        pushed = push(args.grafana, auth, args.prometheus, args.folder)
    except PushError as error:
        raise CommandError(str(error)) from error
    print(f"{pushed.url} (version {pushed.version})")
    return 0
