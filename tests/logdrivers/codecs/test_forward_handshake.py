"""The handshake of Forward: whoever knows the key gets through, nobody else, and nothing makes it fall over."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logdrivers.codecs.forward_decode import ForwardDecoder, Handshake
from logdrivers.codecs.forward_handshake import Client, Credentials, HandshakeError, Security, Server

KEY = "a key"


def fields(message: bytes) -> list[Any]:
    (found,) = ForwardDecoder().feed(message)
    assert isinstance(found, Handshake)
    return list(found.fields)


def shake(credentials: Credentials, security: Security) -> str:
    """What comes of it: ``""``, or the cause at the server and the client's words."""
    client, server = Client(credentials), Server(security)
    answer, refusal = server.pong(fields(client.ping(fields(server.helo()))))
    try:
        client.check(fields(answer))
    except HandshakeError as error:
        return f"{refusal.cause if refusal else None}: {error}"
    assert refusal is None
    return ""


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20), st.booleans())
def test_who_knows_the_secrets_is_let_in(key: str, user: str, password: str, with_users: bool) -> None:
    users = {user: password, "other": "x"} if with_users else {}
    assert shake(Credentials("a", key, user, password), Security("b", key, users)) == ""


@pytest.mark.parametrize(
    ("credentials", "outcome"),
    [
        (Credentials("a", "other", "u", "p"), "shared_key: it refused us: shared_key mismatch"),
        (Credentials("a", KEY), "user: it refused us: username/password mismatch"),
        (Credentials("a", KEY, "v", "p"), "user: it refused us: username/password mismatch"),
        (Credentials("a", KEY, "v", ""), "user: it refused us: username/password mismatch"),
        (Credentials("a", KEY, "u", "P"), "user: it refused us: username/password mismatch"),
        (
            Credentials("b", KEY, "u", "p"),
            "hostname: it refused us: same hostname between input and output: invalid configuration",
        ),
    ],
)
def test_who_does_not_is_refused_with_fluentds_words(credentials: Credentials, outcome: str) -> None:
    assert shake(credentials, Security("b", KEY, {"u": "p"})) == outcome


def test_the_digests_are_the_specifications() -> None:
    helo = ["HELO", {"nonce": "nonce", "auth": b"auth", "keepalive": True}]
    ping = fields(Client(Credentials("me", KEY, "u", "p")).ping(fields(msgpack.packb(helo))))
    host, salt, digest, user, password = (field.decode() for field in ping)
    assert (host, user, len(salt)) == ("me", "u", 32)
    assert digest == hashlib.sha512(f"{salt}menonce{KEY}".encode()).hexdigest()
    assert password == hashlib.sha512(b"authup").hexdigest()


def test_a_user_is_told_only_to_a_server_that_asks() -> None:
    ping = fields(Client(Credentials("me", KEY, "u", "p")).ping([{"nonce": b"n", "auth": ""}]))
    assert ping[3:] == [b"", b""]


def test_every_connection_has_a_nonce_and_a_salt_of_its_own() -> None:
    first, second = (fields(Server(Security("b", KEY, {"u": "p"})).helo())[0] for _ in range(2))
    assert first[b"nonce"] != second[b"nonce"]
    assert first[b"auth"] != second[b"auth"]
    pings = [fields(Client(Credentials("a", KEY)).ping([first])) for _ in range(2)]
    assert pings[0][1] != pings[1][1]
    server = Server(Security("b", KEY))
    _, refusal = server.pong(pings[0])  # of another connection's nonce
    assert refusal is not None
    assert refusal.cause == "shared_key"


def test_secrets_are_in_no_representation() -> None:
    for value in (Credentials("a", "s3cret", "u", "s3cret"), Security("b", "s3cret", {"u": "s3cret"})):
        assert "s3cret" not in repr(value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=8) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.binary(max_size=4) | st.text(max_size=4), inner)
    ),
    max_leaves=6,
)


@given(st.lists(VALUES, max_size=6))
def test_any_ping_gets_a_pong(ping: list[Any]) -> None:
    answer, refusal = Server(Security("b", KEY, {"u": "p"})).pong(ping)
    assert refusal is not None
    assert fields(answer)[0] is False


@given(st.lists(VALUES, max_size=2), st.lists(VALUES, min_size=4, max_size=6))
def test_any_helo_and_pong_are_understood_or_refused(helo: list[Any], pong: list[Any]) -> None:
    client = Client(Credentials("a", KEY))
    with contextlib.suppress(HandshakeError):
        assert fields(client.ping(helo))[0] == b"a"
    with pytest.raises(HandshakeError):
        client.check(pong)
