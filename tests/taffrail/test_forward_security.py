"""Who may send to the Forward input, as configured: a key, a file with it, users, TLS; errors name the setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from taffrail.cli.config import render
from taffrail.config_load import load
from taffrail.errors import CommandError
from taffrail.forward_security import forward_security, forward_tls


def test_without_a_key_anybody_may_send() -> None:
    assert forward_security(load(None, {})) is None
    assert forward_tls(load(None, {})) is None


def test_the_key_comes_from_the_configuration_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    for setting in ("inputs.forward_shared_key=s3cret", f"inputs.forward_shared_key_file={tmp_path}/key"):
        config = load(None, {}, [setting, "inputs.forward_users.web=pw", "collector.host=h"])
        security = forward_security(config)
        assert security is not None
        assert (security.hostname, security.shared_key) == ("taffrail.h", "s3cret")
        assert security.users == {"web": "pw"}
        for text in (repr(security), render(config)):
            assert "s3cret" not in text
            assert "pw" not in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"forward_shared_key": "a", "forward_shared_key_file": "b"}, "are both set"),
        ({"forward_shared_key_file": "/nope"}, "forward_shared_key_file /nope: No such file"),
        ({"forward_shared_key_file": "/dev/null"}, "forward_shared_key_file /dev/null: the file is empty"),
        ({"forward_users": "a=b"}, "forward_users needs forward_shared_key"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, str], message: str) -> None:
    config = load(None, {}, [f"inputs.{key}={value}" for key, value in settings.items()])
    with pytest.raises(CommandError, match=message):
        forward_security(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["inputs.forward_tls_key=/k"], "forward_tls_key needs forward_tls_cert"),
        (["inputs.forward_tls_cert=/nope"], "forward_tls_cert /nope"),
        (["inputs.forward_tls_cert=/dev/null"], "forward_tls_cert /dev/null"),
    ],
)
def test_certificates_that_cannot_be_used_are_named(settings: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        forward_tls(load(None, {}, settings))
