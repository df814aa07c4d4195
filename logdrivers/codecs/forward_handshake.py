"""The handshake of Fluentd's Forward protocol v1, both sides: HELO, PING, PONG and the digests in them.

Both prove that they know the shared key, and a client, if the server wants users, a password; neither goes over
the wire. Format: the Forward Protocol Specification v1 of the Fluentd project. Who waits for which message, and
for how long, is ``logdrivers/sinks/fluentd.py`` and ``collector/inputs/forward.py``.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

__all__ = ["Client", "Credentials", "HandshakeError", "Security", "Server"]

_SALT_BYTES = 16
_REASON_CHARACTERS = 200


class HandshakeError(Exception):
    """The other side is refused, or refuses. ``cause`` is the label of a counter."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client knows. ``hostname`` is the name it gives itself, which must differ from the server's."""

    hostname: str
    shared_key: str = field(repr=False)
    username: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Security:
    """What a server knows. With ``users`` (passwords by name) each client has to be one of them."""

    hostname: str
    shared_key: str = field(repr=False)
    users: Mapping[str, str] = field(default_factory=dict, repr=False)


class Client:
    """One connection's client: ``ping`` answers the server's HELO, ``check`` reads its PONG."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._salt = os.urandom(_SALT_BYTES).hex().encode()
        self._nonce = b""
        self.keepalive = True  #: whether the server wants the connection used for more than one batch

    def ping(self, helo: Sequence[Any]) -> bytes:
        """The PING for the fields of a HELO. Raises HandshakeError for one that cannot be understood."""
        options = helo[0] if helo else None
        if not isinstance(options, Mapping):
            raise HandshakeError("malformed", "its HELO has no options")
        known = {_bytes(key): value for key, value in options.items()}
        self._nonce = _bytes(known.get(b"nonce", b""))
        auth_salt = _bytes(known.get(b"auth") or b"")
        self.keepalive = known.get(b"keepalive", True) is not False
        own = self._credentials
        user, password = "", ""
        if auth_salt:
            user = own.username
            password = _digest(auth_salt, user.encode(), own.password.encode())
        host = own.hostname.encode()
        digest = _digest(self._salt, host, self._nonce, own.shared_key.encode())
        return _pack(("PING", own.hostname, self._salt.decode(), digest, user, password))

    def check(self, pong: Sequence[Any]) -> None:
        """Return if the PONG says yes and comes from a server that knows the key. Raises HandshakeError."""
        accepted, reason, server, digest = pong[:4]
        own = self._credentials
        if accepted is not True:
            raise HandshakeError("refused", f"it refused us: {_shown(reason)}")
        host = _bytes(server)
        if host == own.hostname.encode():
            raise HandshakeError("hostname", f"it has our own host name, {own.hostname!r}")
        expected = _digest(self._salt, host, self._nonce, own.shared_key.encode())
        if not _equal(digest, expected):
            raise HandshakeError("shared_key", "it does not know the shared key")


class Server:
    """One connection's server: ``helo`` is the first thing to send, ``pong`` answers the client's PING."""

    def __init__(self, security: Security) -> None:
        self._security = security
        self._nonce = os.urandom(_SALT_BYTES)
        self._auth_salt = os.urandom(_SALT_BYTES) if security.users else b""

    def helo(self) -> bytes:
        """The HELO."""
        return _pack(("HELO", {"nonce": self._nonce, "auth": self._auth_salt, "keepalive": True}))

    def pong(self, ping: Sequence[Any]) -> tuple[bytes, HandshakeError | None]:
        """The PONG for the fields of a PING, and why it says no if it does."""
        own = self._security
        try:
            self._check(ping)
        except HandshakeError as error:
            return _pack(("PONG", False, str(error), "", "")), error
        host = own.hostname.encode()
        digest = _digest(_bytes(ping[1]), host, self._nonce, own.shared_key.encode())
        return _pack(("PONG", True, "", own.hostname, digest)), None

    def _check(self, ping: Sequence[Any]) -> None:
        """The reasons are Fluentd's: clients show them."""
        if len(ping) != 5:
            raise HandshakeError("handshake", f"a PING of {len(ping)} fields, expected 5")
        host, salt, digest, user, password = map(_bytes, ping)
        own = self._security
        if not _equal(digest, _digest(salt, host, self._nonce, own.shared_key.encode())):
            raise HandshakeError("shared_key", "shared_key mismatch")
        if host == own.hostname.encode():
            raise HandshakeError("hostname", "same hostname between input and output: invalid configuration")
        if own.users:
            known = own.users.get(user.decode("utf-8", "replace"))
            expected = _digest(self._auth_salt, user, (known or "").encode())
            if not _equal(password, expected) or known is None:
                raise HandshakeError("user", "username/password mismatch")


def _digest(*parts: bytes) -> str:
    return hashlib.sha512(b"".join(parts)).hexdigest()


def _equal(given: object, expected: str) -> bool:
    return hmac.compare_digest(_bytes(given), expected.encode())


def _bytes(value: object) -> bytes:
    """A string as it came: bytes from MessagePack, str from JSON. Anything else is no secret's match."""
    if isinstance(value, bytes):
        return value
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else b""


def _shown(reason: object) -> str:
    text = _bytes(reason).decode("utf-8", "replace")[:_REASON_CHARACTERS]
    return "".join(c if c.isprintable() else "?" for c in text) or "it gave no reason"


def _pack(message: object) -> bytes:
    packed: bytes = msgpack.packb(message)
    return packed
