"""``/networks``: list, inspect, create, remove, connect, disconnect."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from aiohttp import web

from runtime.api.routing import Call, Routes, json_response, no_content
from runtime.config import EndpointConfig
from runtime.errors import BadRequest, EngineError, Forbidden
from runtime.fields import Fields
from runtime.networks.network import Network, NetworkRequest

__all__ = ["routes"]

routes = Routes()


@routes.get("/networks")
async def listing(call: Call) -> web.StreamResponse:
    """``docker network ls``."""
    filters = call.filters()
    return json_response([n.to_api() for n in call.engine.networks.list() if _selected(call, n, filters)])


def _selected(call: Call, network: Network, filters: Mapping[str, Sequence[str]]) -> bool:
    for key, values in filters.items():
        match key:
            case "name":
                keep = any(value in network.name for value in values)
            case "id":
                keep = any(network.id.startswith(value) for value in values)
            case "driver":
                keep = network.driver in values
            case "scope":
                keep = "local" in values
            case "type":
                keep = any((value == "builtin") == network.predefined for value in values)
            case "label":
                keep = all(_has_label(network, value) for value in values)
            case "dangling":
                unused = not network.predefined and not call.engine.networks.containers(network.id)
                keep = any((value in ("true", "1")) == unused for value in values)
            case _:
                raise BadRequest(f"invalid filter '{key}'")
        if not keep:
            return False
    return True


def _has_label(network: Network, wanted: str) -> bool:
    key, sep, value = wanted.partition("=")
    return key in network.labels and (not sep or network.labels[key] == value)


@routes.get("/networks/{name}")
async def inspect(call: Call) -> web.StreamResponse:
    """``docker network inspect``."""
    networks = call.engine.networks
    network = networks.get(call.params["name"])
    return json_response(network.to_api(networks.containers(network.id)))


@routes.post("/networks/create")
async def create(call: Call) -> web.StreamResponse:
    """``docker network create``."""
    request = NetworkRequest.from_api(await call.json())
    network = await asyncio.to_thread(call.engine.networks.create, request)
    call.engine.events.publish(
        "network", "create", network.id, {"name": network.name, "type": network.driver}
    )
    return json_response({"Id": network.id, "Warning": ""}, status=201)


@routes.delete("/networks/{name}")
async def remove(call: Call) -> web.StreamResponse:
    """``docker network rm``."""
    network = await asyncio.to_thread(call.engine.networks.remove, call.params["name"])
    call.engine.events.publish(
        "network", "destroy", network.id, {"name": network.name, "type": network.driver}
    )
    return no_content()


@routes.post("/networks/{name}/connect")
async def connect(call: Call) -> web.StreamResponse:
    """``docker network connect``."""
    body = Fields(await call.json())
    network = call.engine.networks.get(call.params["name"])
    container = call.engine.containers.get(body.string("Container"))
    settings = body.object("EndpointConfig").raw
    config = EndpointConfig.from_api(settings, "EndpointConfig")
    async with container.lock:
        if container.state.running:
            await asyncio.to_thread(call.engine.networks.connect, container.id, network.id, config)
        elif network.name in container.definition.config.networks:
            raise Forbidden(f"container {container.id} is already connected to network {network.name}")
        container.remember_network(network.name, settings)
    _publish(call, network, "connect", container.id)
    return web.Response(status=200)


@routes.post("/networks/{name}/disconnect")
async def disconnect(call: Call) -> web.StreamResponse:
    """``docker network disconnect``."""
    body = Fields(await call.json())
    network = call.engine.networks.get(call.params["name"])
    container = call.engine.containers.get(body.string("Container"))
    async with container.lock:
        if container.state.running:
            await asyncio.to_thread(call.engine.networks.disconnect, container.id, network.id)
        container.forget_network(network.name, network.id)
    _publish(call, network, "disconnect", container.id)
    return web.Response(status=200)


def _publish(call: Call, network: Network, action: str, container_id: str) -> None:
    attributes = {"container": container_id, "name": network.name, "type": network.driver}
    call.engine.events.publish("network", action, network.id, attributes)


@routes.post("/networks/prune")
async def prune(call: Call) -> web.StreamResponse:
    """``docker network prune``."""
    networks = call.engine.networks
    wanted = {c.definition.config.host.network_mode for c in call.engine.containers.all()}
    deleted: list[str] = []
    for network in networks.list():
        if network.predefined or networks.containers(network.id) or {network.name, network.id} & wanted:
            continue
        try:
            await asyncio.to_thread(networks.remove, network.id)
        except EngineError:
            continue  # in use by now
        deleted.append(network.name)
    return json_response({"NetworksDeleted": deleted or None})
