"""``/volumes``: the local driver's volumes."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from runtime.api.routing import Call, Routes, json_response, no_content
from runtime.api.times import rfc3339
from runtime.disk import directory_size
from runtime.errors import BadRequest
from runtime.fields import Fields
from runtime.volume import Volume

__all__ = ["routes"]

routes = Routes()


def _render(volume: Volume) -> dict[str, Any]:
    return {
        "CreatedAt": rfc3339(volume.created_ns - volume.created_ns % 1_000_000_000),
        "Driver": "local",
        "Labels": dict(volume.labels) or None,
        "Mountpoint": str(volume.mountpoint),
        "Name": volume.name,
        "Options": dict(volume.options) or None,
        "Scope": "local",
    }


@routes.get("/volumes")
async def listing(call: Call) -> web.StreamResponse:
    """``docker volume ls``."""
    filters = call.filters()
    chosen = [volume for volume in call.engine.volumes.list() if _selected(call, volume, filters)]
    return json_response({"Volumes": [_render(volume) for volume in chosen], "Warnings": None})


def _selected(call: Call, volume: Volume, filters: dict[str, list[str]]) -> bool:
    for key, values in filters.items():
        match key:
            case "name":
                keep = any(value in volume.name for value in values)
            case "driver":
                keep = "local" in values
            case "label":
                keep = all(_has_label(volume, value) for value in values)
            case "dangling":
                unused = not call.engine.users_of_volume(volume.name)
                keep = any((value in ("true", "1")) == unused for value in values)
            case _:
                raise BadRequest(f"invalid filter '{key}'")
        if not keep:
            return False
    return True


def _has_label(volume: Volume, wanted: str) -> bool:
    key, sep, value = wanted.partition("=")
    return key in volume.labels and (not sep or volume.labels[key] == value)


@routes.post("/volumes/create")
async def create(call: Call) -> web.StreamResponse:
    """``docker volume create``."""
    body = Fields(await call.json())
    volume, made = call.engine.volumes.create(
        body.string("Name"), body.string_map("Labels"), body.string_map("DriverOpts"), body.string("Driver")
    )
    if made:
        call.engine.events.publish("volume", "create", volume.name, {"driver": "local"})
    return json_response(_render(volume), status=201)


@routes.get("/volumes/{name}")
async def inspect(call: Call) -> web.StreamResponse:
    """``docker volume inspect``."""
    return json_response(_render(call.engine.volumes.get(call.params["name"])))


@routes.delete("/volumes/{name}")
async def remove(call: Call) -> web.StreamResponse:
    """``docker volume rm``."""
    await call.engine.remove_volume(call.params["name"], force=call.flag("force"))
    return no_content()


@routes.post("/volumes/prune")
async def prune(call: Call) -> web.StreamResponse:
    """``docker volume prune``: anonymous volumes that no container uses, with ``all`` named ones too."""
    everything = call.filters().get("all", ["false"])[0] in ("true", "1") or call.version < (1, 42)
    deleted: list[str] = []
    reclaimed = 0
    for volume in call.engine.volumes.list():
        if call.engine.users_of_volume(volume.name) or not (everything or volume.anonymous):
            continue
        reclaimed += await asyncio.to_thread(directory_size, volume.mountpoint)
        await call.engine.remove_volume(volume.name)
        deleted.append(volume.name)
    return json_response({"VolumesDeleted": deleted or None, "SpaceReclaimed": reclaimed})
