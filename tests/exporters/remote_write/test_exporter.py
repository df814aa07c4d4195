"""Faults of a receiver that a real one does not show at will: busy, hanging, refusing, and what it gets to see."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from pathlib import Path
from types import ModuleType

import aiohttp
import pytest
from aiohttp import web

from exporters.prometheus.self_metrics import SelfMetrics
from exporters.remote_write.config import RemoteWriteConfig
from exporters.remote_write.exporter import RemoteWriteExporter, retry_after
from exporters.remote_write.metrics import remote_write_metrics

Test = Callable[["Faulty", RemoteWriteExporter, aiohttp.ClientSession], Awaitable[None]]


class Faulty:
    """Answers what it is told to, in order, then 204."""

    def __init__(self) -> None:
        self.answers: list[web.Response | None] = []
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []

    async def write(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        answer = self.answers.pop(0) if self.answers else web.Response(status=204)
        if answer is None:
            await asyncio.sleep(60)
            return web.Response()
        return answer


def against(tmp_path: Path, test: Test, **options: object) -> RemoteWriteExporter:
    async def go() -> RemoteWriteExporter:
        faulty = Faulty()
        app = web.Application()
        app.router.add_post("/write", faulty.write)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/write"
            config = RemoteWriteConfig(url=url, directory=tmp_path / "queue", **options)  # type: ignore[arg-type]
            sender = RemoteWriteExporter(config, lambda: b"x 1\ny 2\n")
            async with aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=config.timeout_seconds)
            ) as session:
                await test(faulty, sender, session)
            return sender
        finally:
            await runner.cleanup()

    return asyncio.run(go())


def test_the_request_is_what_the_protocol_says(tmp_path: Path, wire: ModuleType) -> None:
    (tmp_path / "token").write_text("s3cret\n")

    async def test(faulty: Faulty, sender: RemoteWriteExporter, session: aiohttp.ClientSession) -> None:
        await sender.make_once()
        assert await sender.send_first(session) == 0
        assert await sender.send_first(session) is None
        (request,) = faulty.requests
        assert request.headers["Content-Encoding"] == "snappy"
        assert request.headers["Content-Type"] == "application/x-protobuf"
        assert request.headers["X-Prometheus-Remote-Write-Version"] == "0.1.0"
        assert request.headers["Authorization"] == "Bearer s3cret"
        assert request.headers["X-Scope-OrgID"] == "team"
        assert [labels for labels, _, _ in wire.request(faulty.bodies[0])] == [
            (("__name__", "x"), ("dc", "eu")),
            (("__name__", "y"), ("dc", "eu")),
        ]

    against(
        tmp_path,
        test,
        bearer_token_file=str(tmp_path / "token"),
        headers={"X-Scope-OrgID": "team"},
        external_labels={"dc": "eu"},
    )


def test_a_changed_password_is_used_without_a_restart(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("one")

    async def test(faulty: Faulty, sender: RemoteWriteExporter, session: aiohttp.ClientSession) -> None:
        for word in ("one", "two"):
            secret.write_text(word)
            await sender.make_once()
            assert await sender.send_first(session) == 0
            expected = base64.b64encode(f"me:{word}".encode()).decode()
            assert faulty.requests[-1].headers["Authorization"] == f"Basic {expected}"
        secret.unlink()
        await sender.make_once()
        assert await sender.send_first(session)
        assert sender.queue.held == 2

    against(tmp_path, test, username="me", password_file=str(secret))


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 301])
def test_what_may_pass_is_tried_again_with_the_same_bytes(tmp_path: Path, status: int) -> None:
    async def test(faulty: Faulty, sender: RemoteWriteExporter, session: aiohttp.ClientSession) -> None:
        faulty.answers = [web.Response(status=status, text="later") for _ in range(2)]
        await sender.make_once()
        for _ in range(2):
            wait = await sender.send_first(session)
            assert wait is not None
            assert 0 < wait < 1
            assert not sender.up
        assert await sender.send_first(session) == 0
        assert sender.up
        assert len(set(faulty.bodies)) == 1
        assert sender.failures == {f"status_{status}": 2}
        assert (sender.queue.delivered, sender.queue.held, sender.queue.dropped) == (2, 0, {})

    against(tmp_path, test)


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("100000", 300.0), ("soon", 0.001), ("", 0.001)])
def test_retry_after_is_kept_to(tmp_path: Path, header: str, seconds: float) -> None:
    async def test(faulty: Faulty, sender: RemoteWriteExporter, session: aiohttp.ClientSession) -> None:
        faulty.answers = [web.Response(status=429, headers={"Retry-After": header})]
        await sender.make_once()
        assert await sender.send_first(session) == seconds

    against(tmp_path, test)


def test_retry_after_may_be_a_date() -> None:
    now = 1_795_203_812.0
    assert retry_after(formatdate(now + 30, usegmt=True), now) == 30.0
    assert retry_after(formatdate(now - 30, usegmt=True), now) == 0.0


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422])
def test_what_the_receiver_refuses_is_dropped_and_counted(
    tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(faulty: Faulty, sender: RemoteWriteExporter, session: aiohttp.ClientSession) -> None:
        faulty.answers = [web.Response(status=status, text="out of order sample")]
        await sender.make_once()
        assert await sender.send_first(session) == 0
        assert sender.queue.dropped == {"rejected": 2}
        assert sender.failures == {f"status_{status}": 1}

    against(tmp_path, test)
    assert f"refused 2 samples with status {status}: 'out of order sample'" in caplog.text


def test_a_receiver_that_hangs_or_is_away_keeps_the_samples(tmp_path: Path) -> None:
    async def test(faulty: Faulty, sender: RemoteWriteExporter, session: aiohttp.ClientSession) -> None:
        faulty.answers = [None]
        await sender.make_once()
        assert await sender.send_first(session)
        assert sender.failures == {"timeout": 1}
        for _ in range(100):
            if not await sender.send_first(session):
                break
            assert sender.failures.keys() == {"timeout"}, "a busy machine may answer as late"

    away = against(tmp_path, test, timeout_seconds=0.2)

    async def unreached() -> None:
        await away.make_once()
        async with aiohttp.ClientSession() as session:
            assert await away.send_first(session)

    asyncio.run(unreached())
    assert away.failures.keys() == {"timeout", "connection"}
    assert away.failures["connection"] == 1
    assert (away.queue.taken, away.queue.delivered, away.queue.held) == (4, 2, 2)


def test_running_goes_on_through_failures_and_stops_when_told(tmp_path: Path) -> None:
    async def test(faulty: Faulty, sender: RemoteWriteExporter, session: aiohttp.ClientSession) -> None:
        faulty.answers = [web.Response(status=503), web.Response(status=400)]
        running = asyncio.create_task(sender.run())
        deadline = time.monotonic() + 60
        while sender.queue.delivered < 6:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    sender = against(tmp_path, test, interval_seconds=0.02, backoff_seconds=0.01)
    queue = sender.queue
    assert queue.dropped == {"rejected": 2}
    assert queue.taken == queue.delivered + queue.held + 2
    assert len(list((tmp_path / "queue").iterdir())) * 2 == queue.held


def test_the_equation_is_at_metrics(tmp_path: Path) -> None:
    async def test(faulty: Faulty, sender: RemoteWriteExporter, session: aiohttp.ClientSession) -> None:
        faulty.answers = [web.Response(status=400), web.Response(status=204), web.Response(status=503)]
        for _ in range(3):
            await sender.make_once()
            await sender.send_first(session)

    own = SelfMetrics()
    own.register(remote_write_metrics(against(tmp_path, test)))
    page = own.text().decode()
    for line in (
        "samples_total 6.0",
        "delivered_samples_total 2.0",
        "held_samples 2.0",
        'dropped_samples_total{cause="rejected"} 2.0',
        'failures_total{cause="status_503"} 1.0',
        "requests_total 3.0",
        "up 0.0",
    ):
        assert f"taffrail_remote_write_{line}\n" in page


def test_a_page_that_cannot_be_sent_costs_one_interval(tmp_path: Path) -> None:
    config = RemoteWriteConfig(url="http://127.0.0.1:9/", directory=tmp_path)
    sender = RemoteWriteExporter(config, lambda: b"x 1\ny what\n")
    asyncio.run(sender.make_once())
    assert sender.failures == {"page": 1}


def test_a_page_that_fails_costs_one_interval(tmp_path: Path) -> None:
    def page() -> bytes:
        raise RuntimeError("dictionary changed size during iteration")

    sender = RemoteWriteExporter(RemoteWriteConfig(url="http://127.0.0.1:9/", directory=tmp_path), page)
    asyncio.run(sender.make_once())
    assert sender.failures == {"page": 1}


@pytest.mark.parametrize("header", ["\u00b2", "soon", "", "Mon, 01 Jan 2024 00:00:00 +99999999999999"])
def test_a_retry_after_nobody_can_read_asks_for_nothing(header: str) -> None:
    assert retry_after(header, 0.0) == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "vm:8428"}, "url: expected http://host:port/path"),
        ({"url": "http://me:pw@vm/"}, "url: expected no user and password"),
        ({"username": "me"}, "username and password_file together"),
        ({"username": "me", "password_file": "p", "bearer_token_file": "t"}, "got both"),
        ({"client_key": "k"}, "client_key needs client_cert"),
        ({"interval_seconds": 0}, "interval_seconds: expected more than 0"),
        ({"external_labels": {"a-b": "c"}}, "'a-b' is not a label name"),
        ({"external_labels": {"__name__": "c"}}, "'__name__' is not a label name"),
        ({"headers": {"A B": "c"}}, "'A B': expected an HTTP header's name"),
        ({"headers": {"A": "b\r\nC: d"}}, "one line of text"),
        ({"headers": {"Authorization": "x"}}, "is set by the protocol"),
    ],
)
def test_a_wrong_option_is_named(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=r"expected|needs|label|set by") as raised:
        RemoteWriteConfig(**{"url": "http://vm/", "directory": tmp_path, **options})  # type: ignore[arg-type]
    assert message in str(raised.value)


def test_certificates_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    for option in ("ca_certs", "client_cert"):
        config = RemoteWriteConfig(url="https://vm/", directory=tmp_path, **{option: str(tmp_path / "none")})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f"{option} .*none"):
            config.tls()
