"""Serves the page: a few static files, sent with headers that let it load nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

__all__ = ["add_page"]

_STATIC = Path(__file__).with_name("static")
_FILES = {"/": "index.html"} | {
    f"/{name}": name for name in ("app.js", "history.js", "inside.js", "style.css")
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add_page(app: web.Application) -> None:
    """Put the page at ``/``."""

    async def serve(request: web.Request) -> web.FileResponse:
        return web.FileResponse(_STATIC / _FILES[request.path], headers=_HEADERS)

    for path in _FILES:
        app.router.add_get(path, serve)
