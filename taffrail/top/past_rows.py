"""What the agent recorded of processes, threads and connections, as the rows of the lists of the present."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from taffrail.top.columns import Row, number
from taffrail.top.model import Subject

__all__ = ["past_note", "past_rows"]


def past_rows(subject: Subject, answer: Mapping[str, object]) -> list[Row]:
    """The rows of an answer. Raises KeyError, TypeError for what is none."""
    if subject.kind == "connections":
        nodes = {str(node["id"]): str(node["name"]) for node in _list(answer, "nodes")}
        return [_connection(edge, subject.id, nodes) for edge in _list(answer, "edges")]
    return _list(answer, subject.kind)


def past_note(subject: Subject, answer: Mapping[str, object]) -> str:
    """What has to be known of the rows."""
    until = number(answer, "to")
    if not until:
        return "nobody looked for connections then"
    when = datetime.fromtimestamp(until).strftime("%H:%M:%S")
    left = int(number(answer, "left_out"))
    if subject.kind == "connections":
        return f"services used in the minute up to {when}, added up by both ends"
    if subject.kind == "threads":
        return f"the busiest threads of the {number(answer, 'interval_seconds'):.0f} s up to {when}, {left} others"
    share = number(answer, "left_out_cpu_percent")
    return (
        f"the busiest of the {number(answer, 'interval_seconds'):.0f} s up to {when}"
        f", {left} others used {share:.1f} % of a CPU"
    )


def _list(answer: Mapping[str, object], key: str) -> list[Row]:
    rows = answer[key]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TypeError(f"{key}: expected a list of objects")
    return rows


def _connection(edge: Row, own: str, nodes: Mapping[str, str]) -> Row:
    """An edge of the map as its container's end sees it; only the server's port is known."""
    client, server, port = str(edge["client"]), str(edge["server"]), int(number(edge, "port"))
    sent, received = edge["bytes_sent"], edge["bytes_received"]
    serving = server == own and client != own
    here, there = (server, client) if serving else (client, server)
    return {
        "protocol": edge["protocol"],
        "state": f"{number(edge, 'connections'):.0f} open",
        "local": nodes.get(here, here),
        "local_port": port if serving else 0,
        "remote": nodes.get(there, there),
        "remote_port": 0 if serving else port,
        "remote_name": nodes.get(there, ""),
        "bytes_sent": received if serving else sent,
        "bytes_received": sent if serving else received,
    }
