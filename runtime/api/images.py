"""``/images``: import, load, pull through skopeo, list, inspect, tag, remove."""

from __future__ import annotations

import asyncio
import fnmatch
import io
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import orjson
from aiohttp import web

from runtime.api.routing import Call, Routes, Version, json_response
from runtime.disk import image_summary
from runtime.errors import BadRequest, EngineError, NotFound
from runtime.images.archive import load_archive
from runtime.images.image import Image
from runtime.images.pull import pull
from runtime.images.reference import parse_reference

__all__ = ["routes"]

log = logging.getLogger(__name__)
routes = Routes()


class _Body(io.RawIOBase):
    """The request's body as a blocking file, for a thread; the loop does the waiting."""

    def __init__(self, request: web.BaseRequest) -> None:
        super().__init__()
        self._content = request.content
        self._loop = asyncio.get_running_loop()
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            chunk = asyncio.run_coroutine_threadsafe(self._content.readany(), self._loop).result()
            self._left = memoryview(chunk)
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


def _body(call: Call) -> io.BufferedReader:
    return io.BufferedReader(cast("io.RawIOBase", _Body(call.request)), 1 << 18)


@routes.post("/images/create")
async def create(call: Call) -> web.StreamResponse:
    """``docker import`` (``fromSrc=-``) and ``docker pull`` (``fromImage``)."""
    source = call.text("fromSrc")
    if source:
        return await _import(call, source)
    name = call.text("fromImage")
    if not name:
        raise BadRequest("one of the parameters fromImage and fromSrc is required")
    tag = call.text("tag")
    if tag:
        name = f"{name}@{tag}" if ":" in tag else f"{name}:{tag}"
    reference = str(parse_reference(name).tagged())
    return await _progress(call, lambda: _pulled(call, reference))


async def _import(call: Call, source: str) -> web.StreamResponse:
    if source != "-":
        raise BadRequest(f"fromSrc={source!r}: only '-', the request's own body, can be imported")
    reference = call.text("repo")
    if reference and call.text("tag"):
        reference += f":{call.text('tag')}"
    changes = call.request.query.getall("changes", [])
    image = await asyncio.to_thread(
        call.engine.images.import_tar, _body(call), reference, changes, call.text("message")
    )
    call.engine.events.publish("image", "import", image.id, {"name": reference or image.id})
    return json_response({"status": image.id})


async def _pulled(call: Call, reference: str) -> Sequence[str]:
    lines = await pull(call.engine.images, reference, call.text("platform"))
    call.engine.events.publish("image", "pull", reference, {"name": reference})
    return lines


async def _progress(call: Call, work: Callable[[], Awaitable[Sequence[str]]]) -> web.StreamResponse:
    """Docker's progress form: a JSON object a line; an error before the first line keeps its status."""
    lines = await work()
    data = b"".join(orjson.dumps({"status": line}, option=orjson.OPT_APPEND_NEWLINE) for line in lines)
    return web.Response(body=data, content_type="application/json")


@routes.post("/images/load")
async def load(call: Call) -> web.StreamResponse:
    """``docker load``: a ``docker save`` or OCI archive."""
    lines = await asyncio.to_thread(load_archive, call.engine.images, _body(call))
    for line in lines:
        call.engine.events.publish("image", "load", line.split(": ", 1)[-1].strip(), {"name": line.strip()})
    data = b"".join(
        orjson.dumps({"stream": _ended(line)}, option=orjson.OPT_APPEND_NEWLINE) for line in lines
    )
    return web.Response(body=data, content_type="application/json")


def _ended(line: str) -> str:
    return line if line.endswith("\n") else line + "\n"


@routes.get("/images/json")
async def listing(call: Call) -> web.StreamResponse:
    """``docker images``."""
    filters = call.filters()
    images = [image for image in call.engine.images.list() if _selected(call, image, filters)]
    counts: dict[str, int] = {}
    for container in call.engine.containers.all():
        counts[container.image_id] = counts.get(container.image_id, 0) + 1
    return json_response([_summary(image, counts.get(image.id, 0), call.version) for image in images])


def _selected(call: Call, image: Image, filters: Mapping[str, Sequence[str]]) -> bool:
    labels = image.config.get("Labels") or {}
    for key, values in filters.items():
        match key:
            case "dangling":
                keep = any((v in ("true", "1")) == (not image.repo_tags) for v in values)
            case "label":
                keep = all(_has_label(labels, v) for v in values)
            case "reference":
                keep = any(_matches(tag, v) for tag in image.repo_tags for v in values)
            case "before":
                keep = all(image.created_ns < call.engine.images.get(v).created_ns for v in values)
            case "since":
                keep = all(image.created_ns > call.engine.images.get(v).created_ns for v in values)
            case _:
                raise BadRequest(f"invalid filter '{key}'")
        if not keep:
            return False
    return True


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, sep, value = wanted.partition("=")
    return key in labels and (not sep or labels[key] == value)


def _matches(tag: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(tag, pattern) or fnmatch.fnmatchcase(tag.rpartition(":")[0], pattern)


def _summary(image: Image, containers: int, version: Version) -> dict[str, Any]:
    body = image_summary(image, containers, shared_size=-1)
    if version < (1, 44):
        body["VirtualSize"] = image.size_bytes
    return body


@routes.get("/images/{name:path}/json")
async def inspect(call: Call) -> web.StreamResponse:
    """``docker image inspect``."""
    image = call.engine.images.get(call.params["name"])
    document = image.document
    lower = [str(path) for path in reversed(image.layer_dirs)]
    body = {
        "Id": image.id,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": [],
        "Parent": "",
        "Comment": document.get("comment", ""),
        "Created": image.created,
        "DockerVersion": document.get("docker_version", ""),
        "Author": document.get("author", ""),
        "Config": image.config,
        "Architecture": document.get("architecture", ""),
        "Os": document.get("os", "linux"),
        "Size": image.size_bytes,
        "GraphDriver": {
            "Name": "overlay2",
            "Data": {"UpperDir": lower[0], "LowerDir": ":".join(lower[1:])} if lower else {},
        },
        "RootFS": {"Type": "layers", "Layers": [layer.diff_id for layer in image.layers]},
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
    }
    if document.get("variant"):
        body["Variant"] = document["variant"]
    if call.version < (1, 44):
        body["VirtualSize"] = image.size_bytes
    return json_response(body)


@routes.get("/images/{name:path}/history")
async def history(call: Call) -> web.StreamResponse:
    """``docker history``: newest step first."""
    image = call.engine.images.get(call.params["name"])
    sizes = [layer.size_bytes for layer in image.layers]
    steps: list[dict[str, Any]] = []
    at = 0
    for step in image.document.get("history") or []:
        size = 0
        if not step.get("empty_layer") and at < len(sizes):
            size, at = sizes[at], at + 1
        steps.append(
            {
                "Id": "<missing>",
                "Created": _unix(step.get("created", "")),
                "CreatedBy": step.get("created_by", ""),
                "Tags": None,
                "Size": size,
                "Comment": step.get("comment", ""),
            }
        )
    if steps:
        steps[-1] |= {"Id": image.id, "Tags": list(image.repo_tags) or None}
    return json_response(steps[::-1])


def _unix(text: str) -> int:
    try:
        return int(time.mktime(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone)
    except ValueError:
        return 0


@routes.post("/images/{name:path}/tag")
async def tag(call: Call) -> web.StreamResponse:
    """``docker tag``."""
    repo = call.text("repo")
    if not repo:
        raise BadRequest("parameter repo is required: the name to give the image")
    reference = f"{repo}:{call.text('tag')}" if call.text("tag") else repo
    image = call.engine.images.tag(call.params["name"], reference)
    call.engine.events.publish("image", "tag", image.id, {"name": reference})
    return web.Response(status=201)


@routes.delete("/images/{name:path}")
async def remove(call: Call) -> web.StreamResponse:
    """``docker rmi``."""
    removed = await asyncio.to_thread(
        call.engine.images.remove, call.params["name"], call.engine.users_of_image, call.flag("force")
    )
    for item in removed:
        if item.untagged:
            call.engine.events.publish("image", "untag", item.untagged, {"name": item.untagged})
        else:
            call.engine.events.publish("image", "delete", item.deleted, {"name": item.deleted})
    return json_response([item.to_api() for item in removed])


@routes.post("/images/prune")
async def prune(call: Call) -> web.StreamResponse:
    """``docker image prune``: without tags, or with ``dangling=false`` all that no container uses."""
    dangling = call.filters().get("dangling", ["true"])[0] in ("true", "1")
    deleted: list[dict[str, str]] = []
    reclaimed = 0
    for image in call.engine.images.list():
        if call.engine.users_of_image(image.id) or (dangling and image.repo_tags):
            continue
        try:
            removed = await asyncio.to_thread(
                call.engine.images.remove, image.id, call.engine.users_of_image, True
            )
        except NotFound:
            continue  # removed by somebody else meanwhile
        except EngineError as error:
            log.warning("prune keeps image %s: %s", image.id, error.message)
            continue
        deleted += [item.to_api() for item in removed]
        reclaimed += image.size_bytes
    return json_response({"ImagesDeleted": deleted or None, "SpaceReclaimed": reclaimed})
