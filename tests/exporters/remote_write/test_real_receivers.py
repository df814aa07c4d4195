"""VictoriaMetrics and Prometheus take what is on the page, an outage costs nothing, what ends is stale at once."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from remote_write_receivers import PrometheusReceiver, Receiver, VictoriaMetrics

from collector.discovery.registry import Containers
from collector.sampler import Sampler
from exporters.prometheus.exposition import Exposition
from exporters.prometheus.http import page_of
from exporters.prometheus.self_metrics import SelfMetrics
from exporters.remote_write.config import RemoteWriteConfig
from exporters.remote_write.exporter import RemoteWriteExporter


@pytest.fixture(params=[VictoriaMetrics, PrometheusReceiver])
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Receiver]:
    server: Receiver = request.param(tmp_path / "receiver")
    server.start()
    yield server
    server.stop()


class Page:
    """What is sent: set by the test."""

    text = b""

    def __call__(self) -> bytes:
        return self.text


class Clock:
    """A minute ago, and still until the test moves it."""

    def __init__(self) -> None:
        self.now = float(int(time.time()) - 60)

    def __call__(self) -> float:
        return self.now


def exporter(
    receiver: Receiver, directory: Path, page: Page, clock: Clock, **options: object
) -> RemoteWriteExporter:
    config = RemoteWriteConfig(
        url=receiver.url,
        directory=directory,
        external_labels={"instance": "alpha"},
        timeout_seconds=100,
        **options,  # type: ignore[arg-type]
    )
    return RemoteWriteExporter(config, page, clock)


async def send_all(sender: RemoteWriteExporter) -> float | None:
    """Send until the queue is empty or the receiver does not take it; the last answer."""
    async with aiohttp.ClientSession() as session:
        while True:
            wait = await sender.send_first(session)
            if wait is None or wait > 0:
                return wait


def one_pass(sender: RemoteWriteExporter) -> float | None:
    async def go() -> float | None:
        await sender.make_once()
        return await send_all(sender)

    return asyncio.run(go())


def test_every_value_of_the_hosts_real_page_arrives(receiver: Receiver, tmp_path: Path) -> None:
    page, clock = Page(), Clock()
    sampler = Sampler(Containers())
    page.text = page_of(Exposition(Containers(), sampler), sampler, SelfMetrics())()
    sampler.close()
    sender = exporter(receiver, tmp_path / "queue", page, clock)
    assert one_pass(sender) is None
    # The parser calls every counter _total.
    names = {line.split(" ")[2] for line in page.text.decode().splitlines() if line.startswith("# TYPE")}
    plain = {f"{name}_total": name for name in names}
    expected = {
        tuple(
            sorted(
                {
                    "__name__": plain.get(sample.name, sample.name),
                    "instance": "alpha",
                    **sample.labels,
                }.items()
            )
        ): sample.value
        for family in text_string_to_metric_families(page.text.decode())
        for sample in family.samples
    }
    # Both leave out labels without a value; so do we.
    expected = {tuple(pair for pair in key if pair[1]): value for key, value in expected.items()}
    assert len(expected) > 50
    found = receiver.at(round(clock.now * 1000))
    assert found.keys() == expected.keys()
    exact = isinstance(receiver, PrometheusReceiver)
    for key, value in expected.items():
        assert found[key] == (value if exact else pytest.approx(value, rel=1e-12)), key
    assert sender.queue.delivered == sender.queue.taken == len(expected)


def test_an_outage_is_caught_up_with_whole(receiver: Receiver, tmp_path: Path) -> None:
    page, clock = Page(), Clock()
    sender = exporter(receiver, tmp_path / "queue", page, clock)
    sent = []
    for number in range(30):
        if number == 10:
            receiver.stop()
        if number == 20:  # the agent itself is started again in the middle
            assert sender.queue.delivered == 20
            sender = exporter(receiver, tmp_path / "queue", page, clock)
        if number == 25:
            receiver.start()
        page.text = b'requests_total{code="200"} %d\nup 1\n' % (number * 7)
        clock.now += 1
        one_pass(sender)
        sent.append((round(clock.now * 1000), float(number * 7)))
    assert one_pass(sender) is None
    assert receiver.samples("requests_total")[: len(sent)] == sent
    queue = sender.queue
    assert queue.held == 0
    assert not queue.dropped
    assert queue.taken == queue.delivered
    assert sender.failures["connection"] > 0


def test_a_series_that_ends_is_stale_at_once(receiver: Receiver, tmp_path: Path) -> None:
    page, clock = Page(), Clock()
    sender = exporter(receiver, tmp_path / "queue", page, clock)
    page.text = b'x{name="a"} 1\nx{name="b"} 2\n'
    assert one_pass(sender) is None
    both = round(clock.now * 1000)
    clock.now += 1
    page.text = b'x{name="b"} 3\n'
    assert one_pass(sender) is None
    names = {dict(key)["name"] for key in receiver.at(both)}
    assert names == {"a", "b"}
    # Within VictoriaMetrics' and Prometheus' five minutes of looking back.
    later = receiver.at(both + 2000)
    assert {dict(key)["name"]: value for key, value in later.items()} == {"b": 3.0}


def test_what_the_receiver_refuses_is_dropped_and_the_next_goes_through(
    receiver: Receiver, tmp_path: Path
) -> None:
    page, clock = Page(), Clock()
    sender = exporter(receiver, tmp_path / "queue", page, clock)
    page.text = b"x 1\n"
    asyncio.run(sender.make_once())
    (waiting,) = (tmp_path / "queue").iterdir()
    waiting.write_bytes(b"damaged by the power cut")
    assert one_pass(sender) is None
    assert sender.queue.dropped == {"rejected": 1}
    assert sender.queue.delivered == 1
    assert list(sender.failures) == ["status_400"]


def test_over_tls_with_a_password(tmp_path: Path) -> None:
    command = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=vm -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(
        [*command.split(), "-keyout", "k", "-out", "c"], cwd=tmp_path, check=True, capture_output=True
    )
    options = ["-tls", f"-tlsCertFile={tmp_path}/c", f"-tlsKeyFile={tmp_path}/k"]
    options += ["-httpAuth.username=me", "-httpAuth.password=s3cret"]
    receiver = VictoriaMetrics(tmp_path / "vm", *options)
    receiver.over_tls(tmp_path / "c", "me", "s3cret")
    receiver.start()
    try:
        page, clock = Page(), Clock()
        page.text = b"x 1\n"
        (tmp_path / "password").write_text("wrong\n")
        login = {"username": "me", "password_file": str(tmp_path / "password")}
        stranger = exporter(receiver, tmp_path / "q1", page, clock, **login)
        assert one_pass(stranger)
        assert list(stranger.failures) == ["connection"]  # a certificate nobody vouches for
        sender = exporter(receiver, tmp_path / "q2", page, clock, ca_certs=str(tmp_path / "c"), **login)
        assert one_pass(sender) is None
        assert sender.queue.dropped == {"rejected": 1}
        assert list(sender.failures) == ["status_401"]
        (tmp_path / "password").write_text("s3cret\n")
        assert one_pass(sender) is None
        assert sender.queue.delivered == 1
        assert list(receiver.at(round(clock.now * 1000)).values()) == [1.0]
    finally:
        receiver.stop()
