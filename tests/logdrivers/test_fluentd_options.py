"""The fluentd driver's options: Docker's refused in Docker's words, ours with what was expected."""

from __future__ import annotations

import pytest

from logdrivers.driver import OptionError
from logdrivers.fluentd import FluentdDriver
from logdrivers.fluentd_options import parse_address


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fluentd-async": "x"}, 'strconv.ParseBool: parsing "x": invalid syntax'),
        ({"fluentd-sub-second-precision": "x"}, 'strconv.ParseBool: parsing "x": invalid syntax'),
        ({"fluentd-request-ack": "x"}, 'strconv.ParseBool: parsing "x": invalid syntax'),
        ({"fluentd-buffer-limit": "x"}, "invalid size: 'x'"),
        ({"fluentd-buffer-limit": "-1"}, "invalid size: '-1'"),
        ({"fluentd-retry-wait": "5"}, 'time: missing unit in duration "5"'),
        ({"fluentd-retry-wait": "x"}, 'time: invalid duration "x"'),
        ({"fluentd-max-retries": "-1"}, 'strconv.ParseUint: parsing "-1": invalid syntax'),
        ({"fluentd-max-retries": "2147483648"}, "invalid fluentd-max-retries: value out of range"),
        ({"x": "1"}, "unknown log opt 'x' for fluentd log driver"),
        (
            {"fluentd-async": "1", "fluentd-async-connect": "1"},
            "conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect",
        ),
        ({"fluentd-address": "udp://a:1"}, "invalid fluentd-address (udp://a:1): unsupported scheme: 'udp'"),
        ({"fluentd-address": "unix://"}, "invalid fluentd-address (unix://): path is empty"),
        ({"fluentd-address": "unix:///"}, "invalid fluentd-address (unix:///): path is empty"),
        (
            {"fluentd-address": "tcp://h:1/path"},
            "invalid fluentd-address (tcp://h:1/path): should not contain a path element",
        ),
        (
            {"fluentd-async-reconnect-interval": "20s"},
            'invalid value for fluentd-async-reconnect-interval: value ("20s") must be between 100ms and 10s',
        ),
    ],
)
def test_refusals_are_dockers(options: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        FluentdDriver().validate(options)
    assert str(caught.value) == message


KEYED = {"fluentd-shared-key": "k"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"fluentd-message-mode": "forward"},
            "invalid fluentd-message-mode: forward, expected message, packed or compressed",
        ),
        ({"fluentd-shared-key": ""}, "fluentd-shared-key is empty"),
        (
            KEYED | {"fluentd-shared-key-file": "/k"},
            "conflicting options: cannot specify both 'fluentd-shared-key' and 'fluentd-shared-key-file'",
        ),
        (
            {"fluentd-shared-key-file": "/nope"},
            "cannot read fluentd-shared-key-file /nope: No such file or directory",
        ),
        (
            {"fluentd-shared-key-file": "/dev/null"},
            "cannot read fluentd-shared-key-file /dev/null: the file is empty",
        ),
        ({"fluentd-shared-key-file": "/"}, "cannot read fluentd-shared-key-file /: Is a directory"),
        (
            {"fluentd-username": "u", "fluentd-password": "p"},
            "fluentd-username is only valid with fluentd-shared-key or fluentd-shared-key-file",
        ),
        (
            KEYED | {"fluentd-username": "u"},
            "fluentd-username and fluentd-password or fluentd-password-file go together",
        ),
        (
            KEYED | {"fluentd-password": "p"},
            "fluentd-username and fluentd-password or fluentd-password-file go together",
        ),
        (
            KEYED | {"fluentd-username": "u", "fluentd-password-file": "/nope"},
            "cannot read fluentd-password-file /nope: No such file or directory",
        ),
        ({"fluentd-tls-ca-cert": "/x"}, "fluentd-tls-ca-cert is only valid for tls:// addresses"),
        (
            {"fluentd-address": "tls://h", "fluentd-tls-ca-cert": "/nope"},
            'could not read CA certificate "/nope": open /nope: no such file or directory',
        ),
    ],
)
def test_options_of_ours_that_cannot_work_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        FluentdDriver().validate(options)
    assert str(caught.value) == message


@pytest.mark.parametrize("address", ["tcp://h:x", "tcp://h:99999", "h:1:2", "tcp://a b:1"])
def test_addresses_that_cannot_be_are_refused(address: str) -> None:
    with pytest.raises(OptionError, match=r"invalid fluentd-address \("):
        FluentdDriver().validate({"fluentd-address": address})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "tcp://127.0.0.1:24224"),
        ("foo", "tcp://foo:24224"),
        ("foo:1", "tcp://foo:1"),
        ("tcp://:24225", "tcp://127.0.0.1:24225"),
        ("tls://h", "tls://h:24224"),
        ("[::1]:5", "tcp://::1:5"),
        ("unix:///run/x.sock", "unix:///run/x.sock"),
    ],
)
def test_addresses_are_filled_in(text: str, shown: str) -> None:
    assert str(parse_address(text)) == shown


def test_what_docker_takes_is_taken() -> None:
    FluentdDriver().validate(
        {
            "fluentd-async": "",
            "fluentd-buffer-limit": "8m",
            "fluentd-retry-wait": "-1s",
            "fluentd-max-retries": "3",
            "fluentd-async-reconnect-interval": "0",
            "fluentd-write-timeout": "1s",
            "fluentd-read-timeout": "1s",
            "tag": "{{.Name}}",
            "env-regex": "^x",
        }
    )
