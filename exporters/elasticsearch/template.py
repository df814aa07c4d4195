"""The index template: how the fields of our documents are mapped, and that a data stream is made for them.

Installed where there is none and renewed where an older one is ours; one that somebody else changed is left
alone. Servers differ in what they can: the first form one accepts is taken.
"""

from __future__ import annotations

import logging
from typing import Any

import orjson

from exporters.elasticsearch.bulk import Connection

__all__ = ["VERSION", "TemplateRefused", "forms", "install"]

log = logging.getLogger(__name__)

#: Rises with every change of what ``forms`` returns.
VERSION = 1
_KEYWORD = {"type": "keyword", "ignore_above": 8191}


class TemplateRefused(Exception):
    """The server takes none of the template's forms; the text has its answer to the plainest one."""


def install(connection: Connection, data_stream: str) -> str:
    """Put the template for this data stream (or index) in place; returns ``installed`` or ``present``.

    Raises Unreachable (try again later) and TemplateRefused.
    """
    name = f"taffrail-{data_stream}"
    target = f"/_index_template/{name}"
    answer = connection.request("GET", target)
    if answer.status == 200 and not _outdated(answer.body):
        return "present"
    if answer.status not in (200, 404):
        raise TemplateRefused(f"GET {target}: status {answer.status}: {answer.body[:500]!r}")
    for form in forms(data_stream):
        answer = connection.request("PUT", target, orjson.dumps(form))
        if answer.status == 200:
            log.info("installed index template %s", name)
            return "installed"
        if answer.status != 400:
            break
    raise TemplateRefused(f"PUT {target}: status {answer.status}: {answer.body[:500]!r}")


def _outdated(answer: bytes) -> bool:
    try:
        meta = orjson.loads(answer)["index_templates"][0]["index_template"].get("_meta") or {}
        return meta.get("managed_by") == "taffrail" and int(meta.get("version", 0)) < VERSION
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError, ValueError):
        return False


def forms(data_stream: str) -> list[dict[str, Any]]:
    """The template in the forms to try, best first.

    1. Elasticsearch 8.12 on: names with dots stay names, fields beyond the limit are ignored;
    2. OpenSearch and older servers: without those;
    3. servers without data streams: a plain index.
    """
    plain = {
        "index_patterns": [data_stream, f"{data_stream}-*"],
        "priority": 250,
        "_meta": {"managed_by": "taffrail", "version": VERSION},
    }
    streamed = {**plain, "data_stream": {}}
    best = {"index.mapping.total_fields.ignore_dynamic_beyond_limit": True}
    return [
        {**streamed, "template": {"settings": best, "mappings": _mappings(subobjects=False)}},
        {**streamed, "template": {"mappings": _mappings()}},
        {**plain, "template": {"mappings": _mappings()}},
    ]


def _mappings(subobjects: bool = True) -> dict[str, Any]:
    free: dict[str, Any] = {"type": "object"} if subobjects else {"type": "object", "subobjects": False}
    return {
        "dynamic_templates": [
            {"labels": {"path_match": "labels.*", "mapping": _KEYWORD}},
            {"container_labels": {"path_match": "container.labels.*", "mapping": _KEYWORD}},
            {"strings": {"match_mapping_type": "string", "mapping": _KEYWORD}},
        ],
        "date_detection": False,
        "properties": {
            # Nanoseconds are what tells the order of a container's lines; a date would cut them off.
            "@timestamp": {"type": "date_nanos"},
            "message": {"type": "text", "norms": False},
            "stream": _KEYWORD,
            "labels": free,
            "event": {"properties": {"dataset": _KEYWORD, "sequence": {"type": "long"}}},
            "container": {
                "properties": {
                    "id": _KEYWORD,
                    "name": _KEYWORD,
                    "runtime": _KEYWORD,
                    "image": {"properties": {"name": _KEYWORD, "tag": _KEYWORD}},
                    "labels": free,
                }
            },
            "partial": {
                "properties": {"id": _KEYWORD, "ordinal": {"type": "integer"}, "last": {"type": "boolean"}}
            },
        },
    }
