"""hosts and resolv.conf as Docker writes them; references; host ports."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from runtime.config import HostConfig, PortBinding
from runtime.errors import BadRequest, ServerError
from runtime.etc_files import hosts_text, resolv_conf_text
from runtime.images.reference import parse_reference
from runtime.networks.ports import Reservations, parse_port, ports_to_api, wanted_bindings


def test_hosts() -> None:
    text = hosts_text(
        ["10.0.0.2"], "web", "example.org", ["db:10.0.0.9", "host.docker.internal:host-gateway"], "10.0.0.1"
    )
    assert text.startswith("127.0.0.1\tlocalhost\n")
    assert text.endswith("10.0.0.9\tdb\n10.0.0.1\thost.docker.internal\n10.0.0.2\tweb.example.org web\n")
    with pytest.raises(BadRequest, match='invalid IP address in add-host: "x"'):
        hosts_text([], "web", extra_hosts=["db:x"])


def resolv(tmp_path: Path, text: str, **host: object) -> str:
    file = tmp_path / "resolv.conf"
    file.write_text(text)
    return resolv_conf_text(HostConfig.from_api(host), host_file=file, systemd_file=tmp_path / "none")


def test_resolv_conf(tmp_path: Path) -> None:
    plain = "# x\nnameserver 192.0.2.1\nsearch example.org\noptions timeout:1\n"
    assert resolv(tmp_path, plain) == "nameserver 192.0.2.1\nsearch example.org\noptions timeout:1\n"
    assert resolv(tmp_path, "nameserver 127.0.0.53\n") == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
    assert resolv(tmp_path, "nameserver 127.0.0.53\n", NetworkMode="host") == "nameserver 127.0.0.53\n"
    assert resolv(tmp_path, plain, Dns=["198.51.100.1"], DnsSearch=["."], DnsOptions=["ndots:2"]) == (
        "nameserver 198.51.100.1\noptions ndots:2\n"
    )
    assert (
        resolv_conf_text(HostConfig(), "10.1.0.1", tmp_path / "none")
        == "nameserver 10.1.0.1\noptions ndots:0\n"
    )
    with pytest.raises(BadRequest, match="invalid DNS server 'x'"):
        resolv(tmp_path, plain, Dns=["x"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("busybox", "busybox:latest"),
        ("docker.io/library/busybox:1", "busybox:1"),
        ("user/app", "user/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("registry:5000/a/b_c:v1.0", "registry:5000/a/b_c:v1.0"),
        ("a@sha256:" + "0" * 64, "a@sha256:" + "0" * 64),
    ],
)
def test_references(text: str, expected: str) -> None:
    assert str(parse_reference(text).tagged()) == expected


@pytest.mark.parametrize(
    "text", ["", ":x", "a:", "a b", "-a", "a//b", "a:b:c", "../x", "a@sha256:12", "0" * 64, "Upper"]
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(BadRequest, match=r"invalid re(ference format|pository name)"):
        parse_reference(text)


def test_ports_wanted_and_shown() -> None:
    bindings = {"80/tcp": [PortBinding("", "8080"), PortBinding("127.0.0.1", "")], "53/udp": []}
    assert wanted_bindings(bindings, ["80/tcp", "9000/tcp"], publish_all=True) == [
        (80, "tcp", PortBinding("", "8080")),
        (80, "tcp", PortBinding("127.0.0.1", "")),
        (53, "udp", PortBinding()),
        (9000, "tcp", PortBinding()),
    ]
    assert ports_to_api([], ["80/tcp"]) == {"80/tcp": None}
    for text in ("0/tcp", "70000", "80/icmp", "x"):
        with pytest.raises(BadRequest, match="invalid port specification"):
            parse_port(text)


def test_a_port_in_use_by_a_program() -> None:
    reservations = Reservations()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ServerError, match=f"listen tcp4 127.0.0.1:{port}: bind: address already in use"):
            reservations.reserve(80, "tcp", PortBinding("127.0.0.1", str(port)))
        got = reservations.reserve(80, "tcp", PortBinding("127.0.0.1", f"{port}-{min(port + 20, 65535)}"))
        assert got.host_port > port
    with pytest.raises(BadRequest, match="invalid port specification"):
        reservations.reserve(80, "tcp", PortBinding("", "9-1"))
    reservations.close()
