"""What every part of the agent's API answers with: JSON, and refusals that say what was expected."""

from __future__ import annotations

import json

import orjson
from aiohttp import web

__all__ = ["json_answer", "json_bytes", "refusal"]


def json_bytes(value: object) -> bytes:
    """``value`` as JSON; of names that are no UTF-8 (of cgroups) a question mark stands for each odd byte."""
    try:
        return orjson.dumps(value)
    except TypeError:  # orjson takes no lone surrogates
        return json.dumps(value, ensure_ascii=False).encode(errors="replace")


def json_answer(value: object) -> web.Response:
    """200 with ``value`` as JSON."""
    return web.Response(body=json_bytes(value), content_type="application/json")


def refusal(kind: type[web.HTTPError], message: str) -> web.HTTPError:
    """An error to raise, its body ``{"message": …}``: the input's name, and what was expected."""
    return kind(text=json_bytes({"message": message}).decode(), content_type="application/json")
