"""GELF over HTTP: requests as Graylog takes them, what each answer means, and servers that misbehave."""

from __future__ import annotations

import base64
import re
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_server import CLOSE, Request, Server, answer

from logdrivers.block import Block, Encoding, Stream
from logdrivers.driver import Info, Rejected, Sink, SinkDown
from logdrivers.gelf import GelfDriver
from logdrivers.sinks import gelf_http


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


_made: list[Sink] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _made:
        _made.pop().close()


def sink(port: int, path: str = "", scheme: str = "http", **options: str) -> Sink:
    chosen = {"gelf-address": f"{scheme}://127.0.0.1:{port}{path}"} | {
        key.replace("_", "-"): value for key, value in options.items()
    }
    GelfDriver().validate(chosen)
    made = GelfDriver().sink(
        Info("ab" * 32, "/web", "sha256:1", "shop/web", ("sh",), 0, Path("/none"), chosen, hostname="host-7")
    )
    assert made is not None
    _made.append(made)
    return made


def lines(*texts: bytes) -> Block:
    data = b"".join(text + b"\n" for text in texts)
    return Block(data, Encoding.LINES, Stream.STDOUT, 10**18, 10**18, len(texts))


def numbered(count: int, start: int = 0) -> Block:
    return lines(*(b"%d" % n for n in range(start, start + count)))


def test_a_message_is_a_request_as_graylog_takes_it(server: Server) -> None:
    out = sink(server.port)
    out.send([lines(b"a<b")])
    (request,) = server.requests
    assert request.line == "POST /gelf HTTP/1.1"
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    assert request.headers["content-type"] == "application/json"
    assert request.body.startswith(
        b'{"version":"1.1","host":"host-7","short_message":"a\\u003cb","timestamp":'
    )


def test_order_is_kept_and_one_connection_serves_all(server: Server) -> None:
    out = sink(server.port)
    out.send([numbered(300), numbered(200, 300)])
    out.send([numbered(10, 500)])
    assert server.texts == [str(n) for n in range(510)]
    assert server.connections == 1
    assert all(len(request.texts) == 1 for request in server.requests)


def test_path_password_and_header_are_those_of_the_options(server: Server, tmp_path: Path) -> None:
    (tmp_path / "word").write_text("p:ä\n")
    out = sink(
        server.port,
        "/in?x=1",
        gelf_http_username="me",
        gelf_http_password_file=str(tmp_path / "word"),
        gelf_http_header="X-Token: a b",
    )
    out.send([lines(b"a")])
    server.drop_connections()
    (tmp_path / "word").write_text("new")
    out.send([lines(b"b")])
    first, second = server.requests
    assert (first.line, first.headers["x-token"]) == ("POST /in?x=1 HTTP/1.1", "a b")
    assert base64.b64decode(first.headers["authorization"].removeprefix("Basic ")).decode() == "me:p:ä"
    assert base64.b64decode(second.headers["authorization"].removeprefix("Basic ")).decode() == "me:new"


@pytest.mark.parametrize("bulk", ["false", "true"])
def test_bodies_can_be_compressed(server: Server, bulk: str) -> None:
    out = sink(server.port, gelf_http_compression="gzip", gelf_http_bulk=bulk)
    out.send([lines(b"a", b"x" * 5000, b"b")])
    assert server.texts == ["a", "x" * 5000, "b"]
    assert {request.headers["content-encoding"] for request in server.requests} == {"gzip"}


def test_bulk_is_many_messages_a_request_below_graylogs_limit(server: Server) -> None:
    out = sink(server.port, gelf_http_bulk="true")
    out.send([numbered(1000), lines(b"y" * 100_000), numbered(2, 1000)])
    assert server.texts == [*map(str, range(1000)), "y" * 100_000, "1000", "1001"]
    long = [len(request.body) for request in server.requests if len(request.body) > 65_536]
    assert len(long) == 1  # the message that is longer by itself
    assert len(server.requests) < 20


@pytest.mark.parametrize("bulk", ["false", "true"])
def test_empty_lines_are_counted_and_not_posted(server: Server, bulk: str) -> None:
    out = sink(server.port, gelf_http_bulk=bulk)
    with pytest.raises(Rejected) as caught:
        out.send([lines(b"", b"a", b"", b"b")])
    assert caught.value.causes == {"empty_line": 2}
    assert server.texts == ["a", "b"]


# --- what an answer means ---


@pytest.mark.parametrize(("status", "cause"), [(413, "too_large"), (422, "http_422"), (400, "http_400")])
@pytest.mark.parametrize("bulk", ["false", "true"])
def test_a_message_that_is_refused_is_counted_and_the_rest_is_taken(
    server: Server, status: int, cause: str, bulk: str
) -> None:
    taken: list[str] = []

    def answering(request: Request) -> bytes:
        if "bad" in request.texts:
            return answer(status, body=b"no")
        taken.extend(request.texts)
        return answer(202)

    server.answering = answering
    out = sink(server.port, gelf_http_bulk=bulk)
    with pytest.raises(Rejected) as caught:
        out.send([numbered(50), lines(b"bad", b""), numbered(50, 50)])
    assert caught.value.causes == {cause: 1, "empty_line": 1}
    assert sorted(taken, key=int) == [str(n) for n in range(100)]


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_server_that_refuses_everything_costs_no_message(server: Server, status: int) -> None:
    server.answering = lambda request: answer(status, body=b"<h1>not  here</h1>")
    out = sink(server.port)
    with pytest.raises(SinkDown, match=rf"{server.port}/gelf answered {status} Because: <h1>not here</h1>"):
        out.send([numbered(1000)])
    assert len(server.requests) < 100  # and it was not asked a thousand times
    server.requests.clear()
    server.answering = lambda request: answer(202)
    out.send([numbered(1000)])
    assert server.texts == [str(n) for n in range(1000)]


@pytest.mark.parametrize("bulk", ["false", "true"])
def test_a_message_forbidden_among_others_that_are_taken_is_refused(server: Server, bulk: str) -> None:
    server.answering = lambda request: answer(403 if "bad" in request.texts else 202)
    out = sink(server.port, gelf_http_bulk=bulk)
    with pytest.raises(Rejected) as caught:
        out.send([lines(b"a", b"bad", b"b"), *[numbered(500)] * 2])
    assert caught.value.causes == {"http_403": 1}


@pytest.mark.parametrize("status", [302, 408, 429, 500, 503])
@pytest.mark.parametrize("bulk", ["false", "true"])
def test_a_busy_server_is_down_and_gets_no_message_twice(server: Server, status: int, bulk: str) -> None:
    left = [40]
    taken: list[str] = []

    def answering(request: Request) -> bytes:
        if "oops" in request.texts:
            return answer(422)
        if left[0] <= 0:
            return answer(status, "Location: https://elsewhere\r\n")
        left[0] -= 1
        taken.extend(request.texts)
        return answer(202)

    server.answering = answering
    out = sink(server.port, gelf_http_bulk=bulk)
    batch = [lines(b"oops"), numbered(10_000 if bulk == "true" else 500)]
    with pytest.raises(SinkDown, match=f"answered {status} Because"):
        out.send(batch)
    left[0] = 10**9
    with pytest.raises(Rejected) as caught:
        out.send([*batch, lines(b"500000")])  # more has come meanwhile
    assert caught.value.causes == {"http_422": 1}
    assert sorted(map(int, taken)) == [*range(10_000 if bulk == "true" else 500), 500_000]


def test_lines_that_retention_took_meanwhile_do_not_mix_up_what_is_taken(server: Server) -> None:
    server.answering = lambda request: answer(202 if int(request.texts[0]) < 20 else 503)
    out = sink(server.port)
    with pytest.raises(SinkDown):
        out.send([numbered(100)])
    server.answering = lambda request: answer(202)
    server.requests.clear()
    out.send([numbered(90, 10)])
    assert server.texts == [str(n) for n in range(10, 100)]


# --- connections ---


def test_requests_go_ahead_of_answers(server: Server) -> None:
    out = sink(server.port)
    out.send([numbered(1000)])
    assert 8 <= server.ahead <= 64


@pytest.mark.parametrize("polite", [True, False])
def test_a_server_that_closes_after_some_requests_gets_the_rest_on_another(
    server: Server, polite: bool
) -> None:
    seen: list[int] = []
    taken: list[str] = []

    def answering(request: Request) -> bytes | None:
        seen.append(request.connection)
        if not polite and seen.count(request.connection) > 7:
            return None
        taken.extend(request.texts)
        return answer(202, CLOSE if polite and seen.count(request.connection) == 7 else "")

    server.answering = answering
    out = sink(server.port)
    out.send([numbered(100)])
    assert taken == [str(n) for n in range(100)]


def test_a_server_of_one_request_a_connection_is_asked_one_by_one(server: Server) -> None:
    server.answering = lambda request: re.sub(rb"HTTP/1.1", b"HTTP/1.0", answer(202, CLOSE))
    out = sink(server.port)
    out.send([numbered(20)])
    assert server.texts == [str(n) for n in range(20)]
    assert (server.connections, server.ahead) == (20, 1)


def test_a_server_that_answers_only_the_first_of_several_is_asked_one_by_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gelf_http, "_ANSWER_SECONDS", 0.3)
    lone: list[str] = []

    def answering(request: Request) -> bytes:
        lone.append(request.texts[0])
        return b"" if server.ahead > 1 else answer(202)

    server.answering = answering
    out = sink(server.port)
    with pytest.raises(SinkDown, match=r"no answer within 0.3 s"):
        out.send([numbered(20)])
    monkeypatch.setattr(gelf_http, "_ANSWER_SECONDS", 30.0)
    server.ahead = 0
    server.requests.clear()
    out.send([numbered(20)])
    assert server.ahead == 1
    assert server.texts[-1] == "19"
    assert server.texts == [str(n) for n in range(20 - len(server.texts), 20)]


def test_a_kept_connection_that_was_closed_is_made_anew(server: Server) -> None:
    out = sink(server.port)
    for n in range(3):
        out.send([numbered(2, n)])
        server.drop_connections()
    assert server.connections == 3
    assert server.texts == ["0", "1", "1", "2", "2", "3"]


def test_an_answer_nobody_asked_for_is_not_taken_for_the_next_one(server: Server) -> None:
    out = sink(server.port)
    server.answering = lambda request: answer(202)
    out.send([lines(b"a")])
    server._open[0].sendall(answer(408, body=b"idle for too long"))
    out.send([lines(b"b")])
    assert (server.texts, server.connections) == (["a", "b"], 2)


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 202 A\r\nContent-Length: x\r\n\r\n",
        answer(202) * 2,
        answer(202) + b"HTTP",
    ],
)
def test_what_is_no_answer_is_a_sink_that_is_down(server: Server, said: bytes) -> None:
    server.answering = lambda request: said
    out = sink(server.port)
    with pytest.raises(SinkDown, match="cannot post to"):
        out.send([lines(b"a")])


def test_a_server_that_closes_without_an_answer_is_down(server: Server) -> None:
    server.answering = lambda request: None
    out = sink(server.port)
    with pytest.raises(SinkDown, match="closed the connection before it answered"):
        out.send([lines(b"a")])
    assert len(server.requests) == 1


def test_a_refused_connection_is_down(server: Server) -> None:
    server.close()
    out = sink(server.port)
    with pytest.raises(SinkDown, match=f"cannot connect to tcp://127.0.0.1:{server.port}"):
        out.send([lines(b"a")])


def test_closing_ends_a_wait_for_an_answer(server: Server) -> None:
    server.answering = lambda request: b""
    out = sink(server.port)
    failed: list[str] = []

    def send() -> None:
        try:
            out.send([lines(b"a")])
        except SinkDown as error:
            failed.append(str(error))

    thread = threading.Thread(target=send)
    thread.start()
    while not server.requests:
        thread.join(0.01)
    out.close()
    thread.join(100)
    assert not thread.is_alive()
    assert len(failed) == len(server.requests) == 1


# --- TLS ---


@pytest.mark.parametrize("trusted", ["ca", "skip", "not"])
def test_https(certificate: Path, trusted: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    server = Server(context)
    options = {
        "ca": {"gelf_tls_ca_cert": str(certificate / "cert.pem")},
        "skip": {"gelf_tls_skip_verify": "true"},
        "not": {},
    }[trusted]
    out = sink(server.port, scheme="https", **options)
    if trusted == "not":
        with pytest.raises(SinkDown, match="certificate verify failed"):
            out.send([lines(b"a")])
    else:
        out.send([numbered(300)])
        server.drop_connections()
        out.send([numbered(300, 300)])
        assert server.texts == [str(n) for n in range(600)]
    server.close()


def test_a_server_that_refuses_our_certificate_is_down(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificate / "cert.pem")
    server = Server(context)
    trust = {"gelf_tls_ca_cert": str(certificate / "cert.pem")}
    pair = {"gelf_tls_cert": str(certificate / "cert.pem"), "gelf_tls_key": str(certificate / "key.pem")}
    out = sink(server.port, scheme="https", **trust)
    with pytest.raises(SinkDown):
        out.send([lines(b"a")])
    out.close()
    out = sink(server.port, scheme="https", **trust, **pair)
    out.send([lines(b"a")])
    assert server.texts == ["a"]
    server.close()
