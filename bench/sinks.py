"""What ``bench.gelf`` and ``bench.fluentd`` share: blocks of lines, a receiver in its own process, the CPU
time of sending. The receiver's CPU is not counted; what the kernel does inside our system calls is.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgpack

from bench.engines import KINDS
from bench.table import Row, print_table
from logdrivers.block import Block, Encoding, Stream
from logdrivers.codecs.forward import ack
from logdrivers.codecs.json_file import Encoder
from logdrivers.driver import Driver, Info

__all__ = ["Case", "main"]

#: Title, driver, options for a receiver's port, budget in µs.
Case = tuple[str, Driver, Callable[[int], dict[str, str]], float | None]

_BLOCK_BYTES = 64 * 1024
_STEP_NS = 4_567


def blocks(kind: str, lines: int) -> list[Block]:
    """``lines`` lines in blocks of a pipe's size, a millisecond apart."""
    line = KINDS[kind]
    count = max(1, _BLOCK_BYTES // len(line(0)))
    made = []
    for start in range(0, lines, count):
        end = min(start + count, lines)
        time_ns = 1_800_000_000_000_000_000 + start * 1_000_000
        data = b"".join(map(line, range(start, end)))
        made.append(Block(data, Encoding.LINES, Stream.STDOUT, time_ns, time_ns, end - start))
    return made


def timed_blocks(kind: str, lines: int) -> list[Block]:
    """``lines`` lines as json-file records of a time each, some microseconds apart: what the log plugin makes."""
    line, encoder = KINDS[kind], Encoder()
    count = max(1, _BLOCK_BYTES // len(line(0)))
    made = []
    for start in range(0, lines, count):
        end = min(start + count, lines)
        times = [1_800_000_000_000_000_000 + n * _STEP_NS for n in range(start, end)]
        data = b"".join(
            encoder.encode(Block(line(n), Encoding.LINES, Stream.STDOUT, time_ns, time_ns, 1))
            for n, time_ns in enumerate(times, start)
        )
        made.append(Block(data, Encoding.JSON_FILE, Stream.STDOUT, times[0], times[-1], end - start))
    return made


def _receive(udp: socket.socket, tcp: socket.socket) -> None:
    def drain_udp() -> None:
        while True:
            udp.recv(65536)

    def drain(connection: socket.socket) -> None:
        asked = msgpack.Unpacker(raw=True, max_buffer_size=1 << 30)
        asks: bool | None = None
        while data := connection.recv(1 << 20):
            if asks is None:  # Forward, perhaps with acknowledgement: packed, or a message a line
                asks = data[:1] == b"\x93" or (data[:1] == b"\x94" and b"\xa5chunk" in data)
            if asks:
                asked.feed(data)
                chunks = [message[-1].get(b"chunk") for message in asked]
                connection.sendall(b"".join([ack(chunk) for chunk in chunks if chunk]))

    threading.Thread(target=drain_udp, daemon=True).start()
    while True:
        threading.Thread(target=drain, args=(tcp.accept()[0],), daemon=True).start()


@contextlib.contextmanager
def receiver() -> Iterator[int]:
    """A process that takes everything on one port, UDP and TCP, and acknowledges chunks."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.create_server(("127.0.0.1", 0)) as tcp,
    ):
        port = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", port))
        child = multiprocessing.get_context("fork").Process(target=_receive, args=(udp, tcp), daemon=True)
        child.start()
        try:
            yield port
        finally:
            child.terminate()
            child.join()


def measure(driver: Driver, options: dict[str, str], made: Sequence[Block]) -> float:
    """Microseconds of CPU per line, from blocks in memory to the kernel."""
    info = Info(
        "0123456789abcdef" * 4,
        "/web-1",
        "sha256:" + "fedcba9876543210" * 4,
        "shop/web:1.2",
        ("sh", "-c", "exec serve --port 8080"),
        1_800_000_000_000_000_000,
        Path("/nonexistent"),
        options,
        hostname="host-7",
    )
    driver.validate(options)
    sink = driver.sink(info)
    assert sink is not None
    sink.send(made[:1])
    before = time.process_time()
    for start in range(0, len(made), 4):
        sink.send(made[start : start + 4])
    spent = time.process_time() - before
    sink.close()
    return spent / sum(block.lines for block in made) * 1e6


def main(cases: Sequence[Case], arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5, help="runs of each; the median is shown")
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=list(KINDS), metavar="KIND")
    args = parser.parse_args(arguments)
    rows = []
    with receiver() as port:
        for kind in args.kinds:
            made, timed = blocks(kind, args.lines), timed_blocks(kind, args.lines)
            for title, driver, options, budget in cases:
                for text, given in ((kind, made), (f"{kind}, a time each", timed)):
                    runs = (measure(driver, options(port), given) for _ in range(args.runs))
                    within = budget if text == "plain" else None
                    rows.append(
                        Row(f"{title}, {text}", "µs CPU a line", statistics.median(runs), budget=within)
                    )
    print_table(rows)
