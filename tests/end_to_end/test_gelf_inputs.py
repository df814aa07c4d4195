"""Both ends of GELF over TLS and HTTP: the engine's driver sends to the collector's own inputs."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

CONTAINER = "i=0; while [ $i -lt 50 ]; do echo line $i of $1; echo; i=$((i+1)); done"


@pytest.fixture
def certificate(taffrail: Any) -> Path:
    directory = Path(taffrail.root)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", directory / "key.pem", "-out", directory / "cert.pem", "-days", "30", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return directory


def test_lines_come_in_over_tls_and_https_once_and_empty_ones_are_counted(
    taffrail: Any, eventually: Any, image: str, certificate: Path
) -> None:
    taffrail.settings += [
        "inputs.gelf_http=127.0.0.1:0",
        f"inputs.gelf_tls_cert={certificate}/cert.pem",
        f"inputs.gelf_tls_key={certificate}/key.pem",
    ]
    shown = taffrail.up()
    tls, https = f"tls://{taffrail.address('gelf')}", f"https://{taffrail.address('gelf_http')}"
    assert f"{tls}  {https}/gelf" in shown
    taffrail.import_image(image)
    sinks = {"stream": (tls,), "post": (https,), "bulk": (https, "--log-opt", "gelf-http-bulk=true")}
    for name, (address, *more) in sinks.items():
        taffrail.docker(
            "run", "-d", "--name", name, "--network", "none", "--log-driver", "gelf",
            "--log-opt", f"gelf-address={address}", "--log-opt", f"gelf-tls-ca-cert={certificate}/cert.pem", *more,
            image, "sh", "-c", CONTAINER, "sh", name,
        )  # fmt: skip
    for name in sinks:
        expected = [f"line {n} of {name}" for n in range(50)]

        def found(name: str = name) -> list[str]:
            lines = taffrail.taffrail("search", f"container:{name}", "-n", "1000", check=False).splitlines()
            return [line[line.index("line ") :] for line in lines if "line " in line]

        eventually(lambda expected=expected, found=found: len(found()) >= len(expected), f"{name}'s lines")
        assert sorted(found()) == sorted(expected)

    def dropped(name: str) -> list[float]:
        labels = (f'name="{name}"', 'cause="empty_line"')
        found: list[float] = taffrail.metrics().values("taffrail_log_dropped_lines_total", *labels)
        return found

    for name in sinks:
        eventually(lambda name=name: dropped(name) == [50], f"{name}'s empty lines at /metrics")
