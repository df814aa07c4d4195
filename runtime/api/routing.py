"""The route table of the Engine API: which handler serves a method, a path and a version.

Each resource file fills a ``Routes``; ``Router`` joins them, strips the version prefix and finds the
handler. Documented operations that are not served yet are in ``runtime/api/absent.py`` and answer 501;
everything else unknown answers 404. HTTP itself is left to ``runtime/api/server.py``.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from aiohttp import web

from runtime.errors import BadRequest, NotFound

if TYPE_CHECKING:
    from runtime.engine import Engine

__all__ = [
    "API_VERSION",
    "MIN_API_VERSION",
    "Call",
    "Handler",
    "Route",
    "Router",
    "Routes",
    "Version",
    "json_response",
    "no_content",
]


class Version(NamedTuple):
    """An API version; compares as numbers, so 1.9 is before 1.24."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


API_VERSION = Version(1, 50)
MIN_API_VERSION = Version(1, 24)

_VERSIONED = re.compile(r"^/v(\d+)\.(\d+)(/.*)$")
_FALSE = ("", "0", "no", "false", "none")
MAX_JSON_BYTES = 8 << 20  #: a request body that describes an object is never near this


@dataclass(frozen=True, slots=True)
class Call:
    """One request as a handler sees it."""

    engine: Engine
    request: web.BaseRequest
    version: Version
    params: Mapping[str, str]  #: what the path's ``{names}`` matched
    headers: Mapping[str, str]  #: on every answer; a stream sends them itself

    def stream(self, content_type: str, status: int = 200) -> web.StreamResponse:
        """A chunked answer with the common headers; prepare and write it."""
        response = web.StreamResponse(status=status, headers={**self.headers, "Content-Type": content_type})
        if self.request.version >= (1, 1):
            response.enable_chunked_encoding()
        return response

    def text(self, name: str, default: str = "") -> str:
        """A query parameter, the first if it is given twice."""
        return self.request.query.get(name, default)

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean query parameter by Docker's rule: anything but no, 0, false, none and empty is true."""
        value = self.request.query.get(name)
        return default if value is None else value.strip().lower() not in _FALSE

    def integer(self, name: str, default: int | None = None) -> int | None:
        """An integer query parameter; BadRequest names the parameter and the value."""
        value = self.request.query.get(name, "")
        if value == "":
            return default
        try:
            return int(value)
        except ValueError:
            raise BadRequest(f"invalid value {value!r} for parameter {name}: expected an integer") from None

    def filters(self) -> dict[str, list[str]]:
        """The ``filters`` parameter, in both of its forms (lists, and Docker's map of true)."""
        value = self.request.query.get("filters", "")
        if not value:
            return {}
        try:
            body = orjson.loads(value)
            return {key: list(terms) for key, terms in body.items()}
        except (ValueError, TypeError, AttributeError):
            raise BadRequest(f"invalid filter: {value!r} is not a JSON map of lists") from None

    async def json(self) -> dict[str, Any]:
        """The body as a JSON object; an empty body is an empty object."""
        length = self.request.content_length
        if length is not None and length > MAX_JSON_BYTES:
            raise BadRequest(f"request body of {length} bytes is larger than {MAX_JSON_BYTES}")
        data = bytearray()
        async for chunk in self.request.content.iter_any():
            data += chunk
            if len(data) > MAX_JSON_BYTES:
                raise BadRequest(f"request body is larger than {MAX_JSON_BYTES} bytes")
        if not data.strip():
            return {}
        try:
            body = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"invalid JSON: {error}") from None
        if body is None:
            return {}
        if not isinstance(body, dict):
            raise BadRequest(f"invalid JSON: expected an object, got {type(body).__name__}")
        return body


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation."""

    method: str
    path: str
    pattern: re.Pattern[str]
    handler: Handler
    #: Ends when the client goes away (a stream, a wait). Other operations are carried through: a client
    #: that hangs up in the middle of a start must not leave half a container.
    cancellable: bool


class Routes:
    """Collects the operations of one resource."""

    def __init__(self) -> None:
        self.routes: list[Route] = []

    def add(self, method: str, path: str, handler: Handler, cancellable: bool) -> None:
        """Add an operation. ``{name}`` in the path matches one segment, ``{name:path}`` several."""
        pattern = re.sub(r"\{(\w+):path\}", r"(?P<\1>.+)", path)
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)
        self.routes.append(Route(method, path, re.compile(f"^{pattern}/?$"), handler, cancellable))

    def get(self, path: str) -> Callable[[Handler], Handler]:
        """Decorator: serve GET on the path."""
        return self._decorator("GET", path, True)

    def head(self, path: str) -> Callable[[Handler], Handler]:
        """Decorator: serve HEAD on the path."""
        return self._decorator("HEAD", path, True)

    def post(self, path: str, *, cancellable: bool = False) -> Callable[[Handler], Handler]:
        """Decorator: serve POST on the path."""
        return self._decorator("POST", path, cancellable)

    def put(self, path: str) -> Callable[[Handler], Handler]:
        """Decorator: serve PUT on the path."""
        return self._decorator("PUT", path, False)

    def delete(self, path: str) -> Callable[[Handler], Handler]:
        """Decorator: serve DELETE on the path."""
        return self._decorator("DELETE", path, False)

    def _decorator(self, method: str, path: str, cancellable: bool) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            self.add(method, path, handler, cancellable)
            return handler

        return register


class Router:
    """All operations; the first that matches wins, so exact paths are added before patterns."""

    def __init__(self, resources: Iterable[Routes]) -> None:
        self._by_method: dict[str, list[Route]] = {}
        for resource in resources:
            for route in resource.routes:
                self._by_method.setdefault(route.method, []).append(route)
        for routes in self._by_method.values():
            # Stable: literal paths first, then those with parameters, in the order they were added.
            routes.sort(key=lambda route: ("{" in route.path, ":path}" in route.path))

    def resolve(self, method: str, path: str) -> tuple[Route, dict[str, str], Version]:
        """Find the route, its parameters and the version asked for.

        BadRequest for a version that is not served, NotFound for an unknown path; both with Docker's text.
        """
        version = API_VERSION
        matched = _VERSIONED.match(path)
        if matched:
            version = Version(int(matched[1]), int(matched[2]))
            path = matched[3]
            check_version(version)
        for route in self._by_method.get(method, ()):
            found = route.pattern.match(path)
            if found:
                return route, found.groupdict(), version
        raise NotFound("page not found")


def check_version(version: Version) -> None:
    """BadRequest, in Docker's words, for a version outside what is served."""
    if version > API_VERSION:
        raise BadRequest(
            f"client version {version} is too new. Maximum supported API version is {API_VERSION}"
        )
    if version < MIN_API_VERSION:
        raise BadRequest(
            f"client version {version} is too old. Minimum supported API version is {MIN_API_VERSION}, "
            "please upgrade your client to a newer version"
        )


def json_response(body: object, status: int = 200) -> web.Response:
    """An answer with a JSON body, ended by a newline as Docker's."""
    data = orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE)
    return web.Response(body=data, status=status, content_type="application/json")


def no_content() -> web.Response:
    """204."""
    return web.Response(status=204)
