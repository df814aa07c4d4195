"""What every part of the agent's API answers with: JSON, and refusals that say what was expected."""

from __future__ import annotations

import orjson
from aiohttp import web

__all__ = ["json_answer", "refusal"]


def json_answer(value: object) -> web.Response:
    """200 with ``value`` as JSON."""
    return web.Response(body=orjson.dumps(value), content_type="application/json")


def refusal(kind: type[web.HTTPError], message: str) -> web.HTTPError:
    """An error to raise, its body ``{"message": …}``: the input's name, and what was expected."""
    return kind(text=orjson.dumps({"message": message}).decode(), content_type="application/json")
