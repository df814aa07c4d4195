"""Documented operations of the Engine API that this engine does not serve: 501 with the reason.

Listed so that a client can tell "not served" from "no such thing"; an operation leaves this list when its
resource file takes it on.
"""

from __future__ import annotations

from aiohttp import web

from runtime.api.routing import Call, Handler, Routes, json_response
from runtime.errors import NotFound, NotImplementedYet, Unavailable

__all__ = ["routes"]

routes = Routes()

ABSENT = {
    "build": ("POST /build", "POST /build/prune", "POST /build/cancel", "POST /session", "POST /grpc"),
    "commit": ("POST /commit",),
    "container archives": (
        "GET /containers/{name}/archive",
        "HEAD /containers/{name}/archive",
        "PUT /containers/{name}/archive",
        "GET /containers/{name}/export",
    ),
    "container changes": ("GET /containers/{name}/changes",),
    "container update": ("POST /containers/{name}/update",),
    "attach over WebSocket": ("GET /containers/{name}/attach/ws",),
    "image save": ("GET /images/get", "GET /images/{name:path}/get"),
    "image push": ("POST /images/{name:path}/push",),
    "image search": ("GET /images/search",),
    "registry queries": ("GET /distribution/{name:path}/json",),
    "plugins": (
        "GET /plugins/privileges",
        "POST /plugins/pull",
        "DELETE /plugins/{name:path}",
        "POST /plugins/{name:path}",
    ),
}

#: Docker without Swarm answers these with 503 and this text; clients know it.
SWARM = (
    "GET /swarm",
    "POST /swarm/{action}",
    "GET /nodes",
    "GET /nodes/{name}",
    "GET /services",
    "GET /services/{name}",
    "POST /services/create",
    "GET /services/{name}/logs",
    "GET /tasks",
    "GET /tasks/{name}",
    "GET /tasks/{name}/logs",
    "GET /secrets",
    "GET /secrets/{name}",
    "POST /secrets/create",
    "GET /configs",
    "GET /configs/{name}",
    "POST /configs/create",
)


def _refuse(what: str) -> Handler:
    async def handler(call: Call) -> web.StreamResponse:
        raise NotImplementedYet(
            f"{what}: not served by this engine ({call.request.method} {call.request.path})"
        )

    return handler


async def _no_swarm(call: Call) -> web.StreamResponse:
    raise Unavailable(
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node '
        "to swarm and try again."
    )


@routes.get("/plugins")
async def plugins(call: Call) -> web.StreamResponse:
    """``docker plugin ls``: there are none."""
    return json_response([])


@routes.get("/plugins/{name:path}/json")
async def plugin(call: Call) -> web.StreamResponse:
    """There are none; ``docker inspect`` without a type asks here last."""
    raise NotFound(f'plugin "{call.params["name"]}" not found')


def _add(operation: str, handler: Handler) -> None:
    method, path = operation.split(" ", 1)
    routes.add(method, path, handler, True)


for _what, _operations in ABSENT.items():
    for _operation in _operations:
        _add(_operation, _refuse(_what))
for _operation in SWARM:
    _add(_operation, _no_swarm)
