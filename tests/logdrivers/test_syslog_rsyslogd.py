"""A real rsyslogd at the other end of the syslog driver: every format, framing and kind of connection."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from faulty_sink import udp_port
from held_port import hold_port

from logdrivers.block import Block, Encoding, Stream
from logdrivers.driver import Info, Sink, SinkDown
from logdrivers.syslog import SyslogDriver

NS = 1_795_203_851_793_023_000
TEXTS = [b"line %d" % n for n in range(2000)] + [b'caf\xc3\xa9 <&> "q" [x] 1 2', b"x" * 16384, b"last"]


class Rsyslogd(NamedTuple):
    """One that is running: where it listens, and the lines it has written."""

    address: str
    process: subprocess.Popen[bytes]
    out: Path

    def wait(self, count: int) -> list[bytes]:
        """Its lines, once there are so many."""
        deadline = time.monotonic() + 120
        found: list[bytes] = []
        while len(found) < count:
            assert time.monotonic() < deadline, (len(found), found[-2:])
            assert self.process.poll() is None, self.process.stderr and self.process.stderr.read()
            time.sleep(0.05)
            if self.out.exists():
                found = self.out.read_bytes().splitlines()
        return found


@pytest.fixture
def rsyslogd(certificate: Path) -> Iterator[Callable[[str], Rsyslogd]]:
    started: list[tuple[Path, subprocess.Popen[bytes]]] = []
    held = contextlib.ExitStack()

    def start(kind: str) -> Rsyslogd:
        directory = Path(tempfile.mkdtemp(dir="/tmp"))
        address, module = listening(kind, directory, certificate, held)
        (directory / "conf").write_text(
            f'global(maxMessageSize="64k" parser.escapeControlCharactersOnReceive="off" workDirectory="{directory}")\n'
            f"{module}\n"
            'template(name="t" type="string" string='
            '"%syslogfacility%|%syslogseverity%|%hostname%|%programname%|%timereported:::date-unixtimestamp%|%msg%\\n")\n'
            f'action(type="omfile" file="{directory}/out" template="t")\n'
        )
        process = subprocess.Popen(
            ["rsyslogd", "-n", "-iNONE", "-f", directory / "conf"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        started.append((directory, process))
        return Rsyslogd(address, process, directory / "out")

    yield start
    for directory, process in started:
        process.terminate()
        process.wait(100)
        if process.stderr:
            process.stderr.close()
        shutil.rmtree(directory)
    held.close()


def listening(kind: str, directory: Path, certificate: Path, held: contextlib.ExitStack) -> tuple[str, str]:
    """The address, and the configuration that makes rsyslogd take messages there; ``held`` keeps its port."""
    if kind == "unixgram":
        path = directory / "log"
        module = 'module(load="imuxsock" SysSock.Use="off")\n'
        return f"unixgram://{path}", f'{module}input(type="imuxsock" Socket="{path}" RateLimit.Interval="0")'
    if kind == "udp":
        port = udp_port()
        # Room for all of it: it need not be as quick as we are.
        entry = f'input(type="imudp" address="127.0.0.1" port="{port}" rcvbufSize="16m")'
        return f"udp://127.0.0.1:{port}", f'module(load="imudp")\n{entry}'
    port = held.enter_context(hold_port()).getsockname()[1]
    if kind != "tcp+tls":
        entry = f'input(type="im{kind}" address="127.0.0.1" port="{port}")'
        return f"{kind}://127.0.0.1:{port}", f'module(load="im{kind}")\n{entry}'
    files = {"CAFile": "cert", "CertFile": "cert", "KeyFile": "key"}
    settings = " ".join(
        f'DefaultNetstreamDriver{name}="{certificate}/{file}.pem"' for name, file in files.items()
    )
    mode = 'StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="x509/certvalid"'
    return (
        f"tcp+tls://127.0.0.1:{port}",
        f'global(DefaultNetstreamDriver="ossl" {settings})\nmodule(load="imtcp" {mode})\n'
        f'input(type="imtcp" address="127.0.0.1" port="{port}")',
    )


def lines(*texts: bytes, stream: Stream = Stream.STDOUT) -> Block:
    data = b"".join(text + b"\n" for text in texts)
    return Block(data, Encoding.LINES, stream, NS, NS, len(texts))


def sink(address: str, **options: str) -> Sink:
    chosen = {"syslog-address": address} | {k.replace("_", "-"): v for k, v in options.items()}
    SyslogDriver().validate(chosen)
    made = SyslogDriver().sink(
        Info("ab" * 32, "/web", "", "shop/web", ("sh",), 0, Path("/none"), chosen, hostname="host-7")
    )
    assert made is not None
    return made


def deliver(out: Sink, blocks: list[Block]) -> None:
    """As delivery does: again, as long as the sink is down."""
    deadline = time.monotonic() + 100
    while True:
        try:
            out.send(blocks)
            return
        except SinkDown:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("kind", "form", "framing"),
    [
        ("udp", "rfc5424", ""), ("udp", "rfc3164", ""),
        ("tcp", "rfc5424micro", "octet-counted"), ("tcp", "rfc3164", "lf"), ("tcp", "rfc3164", "octet-counted"),
        ("tcp+tls", "rfc5424micro", ""), ("tcp+tls", "rfc3164", ""), ("tcp+tls", "rfc5424", "lf"),
        ("unixgram", "", ""),
    ],
)  # fmt: skip
def test_a_real_rsyslogd_understands_every_message(
    rsyslogd: Callable[[str], Rsyslogd], certificate: Path, kind: str, form: str, framing: str
) -> None:
    daemon = rsyslogd(kind)
    options = {"syslog_framing": framing} if framing else {}
    if kind == "tcp+tls":
        options |= {
            "syslog_tls_ca_cert": str(certificate / "cert.pem"),
            "syslog_tls_cert": str(certificate / "cert.pem"),
            "syslog_tls_key": str(certificate / "key.pem"),
        }
    out = sink(daemon.address, syslog_format=form, syslog_facility="local0", tag="web", **options)
    deliver(out, [lines(*TEXTS[:1000]), lines(*TEXTS[1000:], stream=Stream.STDERR)])
    out.close()
    found = [line.replace(b"| ", b"|", 1).split(b"|", 5) for line in daemon.wait(len(TEXTS))]
    host = b"host-7" if form else socket.gethostname().encode()  # the local form does not say
    expected = [
        [b"16", b"6" if index < 1000 else b"3", host, b"web", b"%d" % (NS // 10**9), text]
        for index, text in enumerate(TEXTS)
    ]
    if kind == "unixgram":  # it takes the sender's word for neither host nor time
        for fields in [*found, *expected]:
            fields[2] = fields[4] = b""
    # rsyslogd hands UDP datagrams on from several threads.
    assert found == expected if kind != "udp" else sorted(found) == sorted(expected)
