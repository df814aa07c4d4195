"""The fluentd driver into npm's @fluent-org/logger, which speaks the whole protocol and is not ours."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.driver import Info, Sink, SinkDown
from logdrivers.fluentd import FluentdDriver

TIME = 1_795_203_851_793_123_456
ID = "0123456789abcdef" * 4
SECRET = "the shared key of both"
USERS = {"web": "pass word", "other": "x"}


def sink(address: str, *, hostname: str = "here", **options: str) -> Sink:
    given = {"fluentd-address": address, **{"fluentd-" + k.replace("_", "-"): v for k, v in options.items()}}
    info = Info(
        ID, "/web", "sha256:" + "fe" * 32, "shop/web", ("sh",), 0, Path("/nonexistent"), given, hostname=hostname
    )  # fmt: skip
    FluentdDriver().validate(given)
    made = FluentdDriver().sink(info)
    assert made is not None
    return made


def blocks() -> list[Block]:
    """One of each kind; 1200 lines in the last, more than are sent before answers are read."""
    many = b"".join(b"line %d\n" % n for n in range(1200))
    records = (
        b'{"log":"a \\"record\\"\\n","stream":"stderr","time":"2026-11-20T19:44:12Z"}\n'
        b'{"log":"later\\n","stream":"stdout","time":"2026-11-20T19:44:13.5Z"}\n'
    )
    return [
        Block("first é\n\n".encode(), Encoding.LINES, Stream.STDOUT, TIME, TIME, 2),
        Block(b"piece", Encoding.LINES, Stream.STDERR, TIME, TIME, 1, Partial("a" * 64, 1, False)),
        Block(records, Encoding.JSON_FILE, Stream.MIXED, TIME, TIME, 2),
        Block(b"Traceback\n  at x\n", Encoding.MESSAGE, Stream.STDERR, TIME, TIME, 1),
        Block(many, Encoding.LINES, Stream.STDOUT, TIME, TIME, 1200),
    ]


LOGS = ["first é", "", "piece", 'a "record"', "later", "Traceback\n  at x"]
SOURCES = ["stdout", "stdout", "stderr", "stderr", "stdout", "stderr"]
SECONDS = [1795203851] * 3 + [1795203852, 1795203853, 1795203851]
FRACTIONS = [793123456] * 3 + [0, 500000000, 793123456]

SECURITY: dict[str, dict[str, Any]] = {
    "open": {},
    "key": {"serverHostname": "there", "sharedKey": SECRET, "authorize": False, "userDict": {}},
    "user": {"serverHostname": "there", "sharedKey": SECRET, "authorize": True, "userDict": USERS},
}
OPTIONS: dict[str, dict[str, str]] = {
    "open": {},
    "key": {"shared_key": SECRET},
    "user": {"shared_key": SECRET, "username": "web", "password": USERS["web"]},
}


def given(security: str) -> dict[str, Any]:
    return {"security": SECURITY[security]} if SECURITY[security] else {}


@pytest.mark.parametrize("security", ["open", "key", "user"])
@pytest.mark.parametrize("ack", [False, True], ids=["unanswered", "acknowledged"])
@pytest.mark.parametrize("mode", ["message", "packed", "compressed"])
def test_everything_arrives_in_every_mode(fluent_logger: Any, mode: str, ack: bool, security: str) -> None:
    with fluent_logger.server(**given(security)) as server:
        out = sink(
            f"127.0.0.1:{server.port}", message_mode=mode, request_ack=str(ack).lower(),
            sub_second_precision="true", **OPTIONS[security],
        )  # fmt: skip
        out.send(blocks())
        out.send(blocks()[:1])  # over the same connection
        entries = server.entries(len(LOGS) + 1200 + 2)
        assert server.nothing_more()
        out.close()
    assert {tag for tag, _, _ in entries} == {ID[:12]}
    assert [time for _, time, _ in entries[:6]] == [list(t) for t in zip(SECONDS, FRACTIONS, strict=True)]
    records = [record for _, _, record in entries]
    assert all(record["container_id"] == ID and record["container_name"] == "/web" for record in records)
    assert [record["log"] for record in records] == LOGS + [f"line {n}" for n in range(1200)] + LOGS[:2]
    assert [record["source"] for record in records[:6]] == SOURCES
    assert {key: value for key, value in records[2].items() if key.startswith("partial")} == {
        "partial_message": "true", "partial_id": "a" * 64, "partial_ordinal": "1", "partial_last": "false",
    }  # fmt: skip


def test_whole_seconds_are_integers(fluent_logger: Any) -> None:
    with fluent_logger.server() as server:
        out = sink(f"127.0.0.1:{server.port}")
        out.send(blocks()[:4])
        assert [time for _, time, _ in server.entries(6)] == SECONDS
        out.close()


@pytest.mark.parametrize(
    ("security", "options", "reason"),
    [
        ("key", {"shared_key": "another"}, "it refused us: shared key mismatch"),
        ("user", {"shared_key": SECRET}, "it refused us: missing authentication information"),
        (
            "user",
            {"shared_key": SECRET, "username": "web", "password": "wrong"},
            "it refused us: username/password mismatch",
        ),
        ("key", {"shared_key": SECRET, "self_hostname": "there"}, "it refused us: Same hostname"),
        ("key", {}, "it asks for a shared key, and neither fluentd-shared-key nor"),
        ("key", {"request_ack": "true"}, "it asks for a shared key, and neither fluentd-shared-key nor"),
    ],
)
def test_a_refusal_is_told_and_nothing_sent(
    fluent_logger: Any, security: str, options: dict[str, str], reason: str
) -> None:
    with fluent_logger.server(**given(security)) as server:
        out = sink(f"127.0.0.1:{server.port}", **options)
        with pytest.raises(SinkDown) as caught:
            out.send(blocks())
        assert reason in str(caught.value)
        for secret in ("another", SECRET, "wrong"):
            assert secret not in str(caught.value)
        assert server.nothing_more()
        out.close()


def test_a_key_from_a_file_is_read_for_every_connection(fluent_logger: Any, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("not yet\n")
    with fluent_logger.server(**given("key")) as server:
        out = sink(f"127.0.0.1:{server.port}", shared_key_file=str(key))
        with pytest.raises(SinkDown, match="shared key mismatch"):
            out.send(blocks()[:1])
        key.write_text(SECRET + "\n")
        out.send(blocks()[:1])
        assert [record["log"] for _, _, record in server.entries(2)] == LOGS[:2]
        out.close()


def test_over_a_unix_socket_with_a_key(fluent_logger: Any) -> None:
    directory = tempfile.mkdtemp(dir="/tmp")
    try:
        with fluent_logger.server(listenOptions={"path": f"{directory}/s"}, **given("user")) as server:
            out = sink(f"unix://{directory}/s", **OPTIONS["user"], request_ack="true")
            out.send(blocks()[:1])
            assert [record["log"] for _, _, record in server.entries(2)] == LOGS[:2]
            out.close()
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize("ack", ["false", "true"])
@pytest.mark.parametrize("security", ["open", "user"])
@pytest.mark.parametrize("mutual", [False, True])
def test_over_tls(
    fluent_logger: Any, localhost_certificate: Path, security: str, ack: str, mutual: bool
) -> None:
    cert, key = localhost_certificate / "cert", localhost_certificate / "key"
    tls: dict[str, Any] = {"cert": cert.read_text(), "key": key.read_text()}
    options = {**OPTIONS[security], "request_ack": ack, "tls_ca_cert": str(cert)}
    if mutual:
        tls |= {"ca": cert.read_text(), "requestCert": True, "rejectUnauthorized": True}
        options |= {"tls_cert": str(cert), "tls_key": str(key)}
    with fluent_logger.server(tlsOptions=tls, **given(security)) as server:
        out = sink(f"tls://localhost:{server.port}", **options)
        out.send(blocks()[:1])
        assert [record["log"] for _, _, record in server.entries(2)] == LOGS[:2]
        out.close()
        for refused, unchecked in (
            ({"tls_skip_verify": "false"}, False),
            ({"tls_skip_verify": "true"}, True),
        ):
            there = {k: v for k, v in options.items() if k != "tls_ca_cert"} | refused
            out = sink(f"tls://localhost:{server.port}", **there)
            if unchecked:
                out.send(blocks()[:1])
                assert len(server.entries(2)) == 2
            else:
                with pytest.raises(SinkDown, match="CERTIFICATE_VERIFY_FAILED"):
                    out.send(blocks()[:1])
            out.close()


def test_a_server_that_wants_our_certificate_and_gets_none_is_down(
    fluent_logger: Any, localhost_certificate: Path
) -> None:
    cert = (localhost_certificate / "cert").read_text()
    tls = {"cert": cert, "ca": cert, "key": (localhost_certificate / "key").read_text(), "requestCert": True}
    with fluent_logger.server(tlsOptions=tls) as server:
        out = sink(f"tls://localhost:{server.port}", tls_ca_cert=str(localhost_certificate / "cert"))
        with pytest.raises(SinkDown, match=f"tls://localhost:{server.port}"):
            out.send(blocks()[:1])
        assert server.nothing_more()
        out.close()
