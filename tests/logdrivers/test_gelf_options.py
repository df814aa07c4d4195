"""The gelf driver's options: what Docker refuses, in its words, what it takes, and addresses."""

from __future__ import annotations

import pytest

from logdrivers.driver import OptionError
from logdrivers.gelf import GelfDriver
from logdrivers.sinks.gelf_address import parse_address

UDP = {"gelf-address": "udp://127.0.0.1:1"}
TCP = {"gelf-address": "tcp://127.0.0.1:1"}
TLS = {"gelf-address": "tls://127.0.0.1:1"}
HTTP = {"gelf-address": "http://127.0.0.1:1"}


# --- options: every refusal as Docker Engine 20.10.24 words it ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "gelf-address is a required parameter"),
        ({"gelf-address": "foo"}, "gelf-address should be in form proto://address, got foo"),
        ({"gelf-address": "ftp://a:1"}, "gelf-address should be in form proto://address, got ftp://a:1"),
        ({"gelf-address": "UDP://h:1"}, "gelf-address should be in form proto://address, got UDP://h:1"),
        ({"gelf-address": "udp://host"}, "gelf: please provide gelf-address as proto://host:port"),
        ({"gelf-address": "udp://"}, "gelf: please provide gelf-address as proto://host:port"),
        ({"gelf-address": "unix:///x"}, "gelf: endpoint needs to be TCP or UDP"),
        ({"gelf-address": "tcp+tls://h"}, "gelf: please provide gelf-address as proto://host:port"),
        ({"gelf-address": "tls://h"}, "gelf: please provide gelf-address as proto://host:port"),
        (
            {"gelf-address": "http://h:1", "gelf-compression-type": "gzip"},
            "compression is only supported on UDP",
        ),
        (
            {"gelf-address": "https://h:1", "gelf-tcp-max-reconnect": "1"},
            '"gelf-tcp-max-reconnect" is only valid for TCP',
        ),
        (
            {**UDP, "gelf-compression-level": "10"},
            'unknown value "10" for log opt "gelf-compression-level" for gelf log driver',
        ),
        (
            {**UDP, "gelf-compression-level": "-2"},
            'unknown value "-2" for log opt "gelf-compression-level" for gelf log driver',
        ),
        (
            {**UDP, "gelf-compression-type": "lz4"},
            'unknown value "lz4" for log opt "gelf-compression-type" for gelf log driver',
        ),
        ({**UDP, "gelf-tcp-max-reconnect": "1"}, '"gelf-tcp-max-reconnect" is only valid for TCP'),
        ({**UDP, 'x"y': "1"}, 'unknown log opt "x\\"y" for gelf log driver'),
        ({**UDP, "mode": "foo"}, "logger: logging mode not supported: foo"),
        ({**TCP, "gelf-compression-level": "1"}, "compression is only supported on UDP"),
        ({**TCP, "gelf-compression-type": "none"}, "compression is only supported on UDP"),
        ({**TCP, "gelf-tcp-max-reconnect": "-1"}, '"gelf-tcp-max-reconnect" must be a positive integer'),
        ({**TCP, "gelf-tcp-reconnect-delay": "x"}, '"gelf-tcp-reconnect-delay" must be a positive integer'),
    ],
)
def test_refusals_are_dockers(options: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        GelfDriver().validate(options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"gelf-address": "udp://1.2.3.4:x"}, "udp://1.2.3.4:x"),
        ({"gelf-address": "udp://a b:1"}, "invalid character in host name"),
        ({**UDP, "tag": "{{.Nome}}"}, "no field .Nome"),
        ({**UDP, "labels-regex": "("}, "labels-regex"),
        ({**UDP, "gelf-udp-rate": "fast"}, "messages per second"),
        (
            {**TCP, "gelf-tls-ca-cert": "/x"},
            "gelf-tls-ca-cert is only valid for tls:// and https:// addresses",
        ),
        (
            {**TLS, "gelf-tls-ca-cert": "/no/ca.pem"},
            'could not read CA certificate "/no/ca.pem": open /no/ca.pem: no',
        ),
        (
            {**TLS, "gelf-tls-cert": "/no/c.pem", "gelf-tls-key": "/no/k.pem"},
            "Could not load X509 key pair: open /no/",
        ),
        ({**TLS, "gelf-tls-skip-verify": "perhaps"}, "invalid gelf-tls-skip-verify"),
        ({**TLS, "gelf-http-bulk": "true"}, '"gelf-http-bulk" is only valid for HTTP'),
        ({**HTTP, "gelf-tls-ca-cert": "/x"}, "gelf-tls-ca-cert is only valid for"),
        ({**HTTP, "gelf-http-bulk": "perhaps"}, "invalid gelf-http-bulk"),
        (
            {**HTTP, "gelf-http-compression": "zlib"},
            'unknown value "zlib" for log opt "gelf-http-compression"',
        ),
        ({**HTTP, "gelf-http-password": "x"}, "needs .gelf-http-username"),
        ({**HTTP, "gelf-http-username": "a:b"}, "cannot have a colon"),
        (
            {**HTTP, "gelf-http-username": "a", "gelf-http-password-file": "/no/p"},
            'gelf-http-password-file "/no/p": No',
        ),
        ({**HTTP, "gelf-http-header": "no colon"}, "must be Name: value, got no colon"),
        ({**HTTP, "gelf-http-header": "A: b\nContent-Length: 3"}, "cannot set Content-Length"),
        ({"gelf-address": "http://user:word@h:1"}, "gelf-http-username and gelf-http-password"),
        ({"gelf-address": "http:///gelf"}, r"proto://host|http://host"),
        ({"gelf-address": "http://h:1/a b"}, "invalid character in path"),
    ],
)
def test_what_cannot_work_is_refused_at_create(options: dict[str, str], what: str) -> None:
    with pytest.raises(OptionError, match=what):
        GelfDriver().validate(options)


@pytest.mark.parametrize(
    "options",
    [
        {"gelf-address": "udp://:12201"},
        {"gelf-address": "tcp://[::1]:3"},
        {"gelf-address": "udp://host:12201/path"},
        {**UDP, "gelf-compression-type": "zlib", "gelf-compression-level": "-1", "gelf-udp-rate": "0"},
        {**TCP, "gelf-tcp-max-reconnect": "3", "gelf-tcp-reconnect-delay": "1"},
        {**TLS, "gelf-tls-skip-verify": "true", "gelf-tcp-max-reconnect": "3"},
        {
            "gelf-address": "https://graylog.example",
            "gelf-http-bulk": "true",
            "gelf-http-compression": "gzip",
        },
        {**HTTP, "gelf-http-username": "a", "gelf-http-password": "b:c", "gelf-http-header": "X-A: b"},
        {**UDP, "mode": "non-blocking", "max-buffer-size": "1m", "cache-disabled": "true"},
        {**UDP, "tag": "{{.Name}}", "labels": "a", "env": "b", "labels-regex": "^x", "env-regex": "y"},
    ],
)
def test_what_docker_takes_is_taken(options: dict[str, str]) -> None:
    GelfDriver().validate(options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp://[::1]:3", ("tcp", "::1", 3, "")),
        ("udp://:12201", ("udp", "", 12201, "")),
        ("tls://h:1", ("tls", "h", 1, "")),
        ("tcp+tls://h:1", ("tls", "h", 1, "")),
        ("http://h", ("http", "h", 80, "/gelf")),
        ("https://h/", ("https", "h", 443, "/gelf")),
        ("http://h:12201/in/put?a=b", ("http", "h", 12201, "/in/put?a=b")),
        ("http://h/?a=b", ("http", "h", 80, "/?a=b")),
    ],
)
def test_addresses(text: str, expected: tuple[str, str, int, str]) -> None:
    address = parse_address(text)
    assert (address.scheme, address.host, address.port, address.target) == expected


def test_addresses_are_shown_as_they_are_typed() -> None:
    for text in ("tcp://[::1]:3", "tls://h:1", "http://h/gelf", "https://h:12201/x"):
        assert str(parse_address(text)) == text


# --- sinks ---
