"""Who may ask the agent over TCP: bearer tokens and TLS as ``[http]`` of the configuration names them.

The agent's unix socket needs neither: its file permissions decide.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import logging
import ssl
from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web
from aiohttp.typedefs import Middleware

from taffrail.config import HttpConfig
from taffrail.errors import CommandError
from taffrail.wiring import split_address

__all__ = ["http_tls", "refuse_if_open", "token_check"]

log = logging.getLogger(__name__)

_CHALLENGE = 'Bearer realm="taffrail", Basic realm="taffrail", charset="UTF-8"'


def http_tls(config: HttpConfig) -> ssl.SSLContext | None:
    """The server's TLS context; None without a certificate. Raises CommandError naming the files."""
    if not config.tls_cert:
        if config.tls_key:
            raise CommandError("[http] tls_key needs tls_cert")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key or None)
    except OSError as error:  # ssl.SSLError is one
        files = f"tls_cert {config.tls_cert}, tls_key {config.tls_key or config.tls_cert}"
        raise CommandError(f"[http] {files}: {error}") from error
    return context


def token_check(tokens: tuple[str, ...]) -> Middleware:
    """Answer 401 to whoever comes over TCP without one of the tokens."""
    # Of one length, so that comparing tells nothing of a token's own.
    digests = [_digest(token) for token in tokens]

    @web.middleware
    async def check(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if not _over_tcp(request):
            return await handler(request)
        shown = _shown(request.headers.get("Authorization", ""))
        if shown is not None:
            digest = _digest(shown)
            # All of them, whichever fits: the time says nothing.
            if sum(hmac.compare_digest(digest, known) for known in digests):
                return await handler(request)
        wrong = "the token shown is not one of http.token_file's" if shown is not None else "no token shown"
        message = f"{wrong}: expected the header 'Authorization: Bearer TOKEN'"
        return web.Response(
            status=401,
            body=orjson.dumps({"message": message}),
            content_type="application/json",
            headers={"WWW-Authenticate": _CHALLENGE},
        )

    return check


def refuse_if_open(config: HttpConfig) -> None:
    """Raise CommandError for an address where other hosts could ask without showing who they are, or be read.

    ``http.allow_insecure`` lets it be, with a warning in the log.
    """
    host, _ = split_address(config.address)
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    missing = [f"http.{key}" for key in ("token_file", "tls_cert") if not getattr(config, key)]
    if loopback or not missing:
        return
    text = f"http.address {config.address} is open to other hosts without {' and '.join(missing)}"
    if not config.allow_insecure:
        raise CommandError(f"{text}: set them, or http.allow_insecure=true on a network you trust")
    log.warning("%s", text)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _over_tcp(request: web.Request) -> bool:
    name = request.transport.get_extra_info("sockname") if request.transport else None
    return not isinstance(name, str | bytes)


def _shown(header: str) -> str | None:
    """The token of an Authorization header: a bearer token or basic authentication's password."""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).decode("utf-8").partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return None
