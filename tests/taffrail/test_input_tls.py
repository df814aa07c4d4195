"""The certificate of an input, as configured; errors name the setting."""

from __future__ import annotations

import pytest

from taffrail.errors import CommandError
from taffrail.input_tls import input_tls


def test_without_a_certificate_there_is_no_tls() -> None:
    assert input_tls("gelf_tls", "", "") is None


@pytest.mark.parametrize(
    ("cert", "key", "message"),
    [
        ("", "/k", r"\[inputs\] gelf_tls_key needs gelf_tls_cert"),
        ("/nope", "", "gelf_tls_cert /nope, gelf_tls_key /nope: .*No such file"),
        ("/dev/null", "", "gelf_tls_cert /dev/null"),
    ],
)
def test_files_that_cannot_be_used_are_named(cert: str, key: str, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        input_tls("gelf_tls", cert, key)
