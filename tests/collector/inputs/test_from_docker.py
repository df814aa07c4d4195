"""A real Docker Engine's gelf and fluentd drivers into our inputs, beside our own drivers' sinks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from memory_intake import sources
from stream_client import until

from collector.inputs.forward import ForwardInput
from collector.inputs.gelf import GelfInput
from logdrivers.block import Block, Encoding, Partial, Stream
from logdrivers.codecs import json_file
from logdrivers.driver import Driver, Info, Rejected, Sink
from logdrivers.fluentd import FluentdDriver
from logdrivers.gelf import GelfDriver

LINES = 3000
SCRIPT = rf"""
printf 'plain <&> "q" tab\tend\n\n\r\nback\\slash \\u0009 \\n \033[1m\007\177\n'
printf 'caf\303\251 \377\376 \342\202 \342\200\250\n'
i=0; while [ $i -lt {LINES} ]; do echo "line $i of a container"; i=$((i+1)); done
head -c 40000 /dev/zero | tr '\0' x; echo
printf 'no newline'
until [ -e /go/now ]; do sleep 0.1; done
"""


def written() -> list[Block]:
    """What the script writes, as the shim would put it into the journal."""
    time_ns = 1_795_203_851_793_123_456

    def block(data: bytes, partial: Partial | None = None) -> Block:
        lines = data.count(b"\n") if partial is None else 1
        return Block(data, Encoding.LINES, Stream.STDOUT, time_ns, time_ns, lines, partial)

    return [
        block(
            b'plain <&> "q" tab\tend\n\n\r\nback\\slash \\u0009 \\n \x1b[1m\x07\x7f\n'
            b"caf\xc3\xa9 \xff\xfe \xe2\x82 \xe2\x80\xa8\n"
        ),
        block(b"".join(b"line %d of a container\n" % i for i in range(LINES))),
        block(b"x" * 16384, Partial("a" * 64, 1, False)),
        block(b"x" * 16384, Partial("a" * 64, 2, False)),
        block(b"x" * (40000 - 32768), Partial("a" * 64, 3, True)),
        block(b"no newline", Partial("b" * 64, 1, False)),
    ]


@pytest.mark.parametrize(
    ("driver", "scheme", "extra"),
    [
        (GelfDriver(), "udp", {}),
        (GelfDriver(), "udp", {"gelf-compression-type": "zlib"}),
        (GelfDriver(), "tcp", {}),
        (FluentdDriver(), "tcp", {"fluentd-sub-second-precision": "true"}),
        (FluentdDriver(), "tcp", {"fluentd-request-ack": "true"}),
    ],
)
def test_dockers_driver_and_ours_leave_the_same_records(
    docker_engine: Any, intake: Any, tmp_path: Path, driver: Driver, scheme: str, extra: dict[str, str]
) -> None:
    async def run() -> tuple[Info, int]:
        kind: type[GelfInput | ForwardInput] = GelfInput if driver.name == "gelf" else ForwardInput
        receiver = kind("127.0.0.1", 0, intake, sources)
        await receiver.start()
        try:
            host, port = receiver.address
            options = {
                f"{driver.name}-address": f"{scheme}://{host}:{port}",
                "tag": "{{.Name}}/{{.ID}}/{{.ImageID}}",
                "labels": "app",
                "env": "TEAM",
                **extra,
            }
            driver.validate(options)
            counters = receiver.counters
            theirs = LINES + (9 if driver.name == "fluentd" else 8)  # GELF has no empty lines
            more = ("-v", f"{tmp_path}:/go")
            running = asyncio.create_task(
                asyncio.to_thread(docker_engine.container, driver.name, options, SCRIPT, *more)
            )
            # Of what is left when a container ends Docker gives up after ten seconds; the open line it ends itself.
            try:
                await until(lambda: counters.stored >= theirs - 1)
            finally:
                (tmp_path / "now").touch()
                info = await running
            await until(lambda: counters.stored >= theirs)
            sink = driver.sink(info)
            assert sink is not None
            refused = await asyncio.to_thread(send, sink)
            assert refused == ({"empty_line": 1} if driver.name == "gelf" else {})
            await until(lambda: counters.stored >= 2 * theirs)
            sink.close()
        finally:
            await receiver.stop()
        assert +counters.dropped == {}
        assert counters.received == counters.stored == 2 * theirs
        return info, theirs

    info, theirs = asyncio.run(run())
    assert {source.container_id for source, _ in intake.blocks} == {info.container_id}
    assert {source.container_name for source, _ in intake.blocks} == {info.container_name.removeprefix("/")}
    records = [record for _, block in intake.blocks for record in json_file.decode(block.data)]
    first, second = records[:theirs], records[theirs:]
    assert [plain(record) for record in first] == [plain(record) for record in second]
    assert first[0].attrs["app"] == "a<b\tc"
    assert first[0].attrs["TEAM"] == "blue"


def send(sink: Sink) -> dict[str, int]:
    """The lines the sink will never take, by cause."""
    try:
        sink.send(written())
    except Rejected as refusal:
        return refusal.causes
    return {}


def plain(record: json_file.Record) -> tuple[object, ...]:
    """Everything that does not differ from run to run."""
    attrs = {key: value for key, value in record.attrs.items() if key != "partial_id"}
    return record.log, record.stream, attrs
