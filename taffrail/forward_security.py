"""Who may send to the Forward input: the shared key, users and certificate that the configuration names.

The handshake is ``collector/inputs/forward_connection.py``; what is read here stands in no message.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from logdrivers.codecs.forward_handshake import Security
from taffrail.config import Config
from taffrail.errors import CommandError
from taffrail.input_tls import input_tls

__all__ = ["forward_security", "forward_tls"]


def forward_security(config: Config) -> Security | None:
    """What senders have to know; None if anybody may send.

    Raises CommandError for settings that exclude or need each other, and a file without a key.
    """
    inputs = config.inputs
    if inputs.forward_shared_key and inputs.forward_shared_key_file:
        raise CommandError(
            "[inputs] forward_shared_key and forward_shared_key_file are both set: one is enough"
        )
    key = inputs.forward_shared_key or _key_in(inputs.forward_shared_key_file)
    if not key:
        if inputs.forward_users:
            raise CommandError("[inputs] forward_users needs forward_shared_key or forward_shared_key_file")
        return None
    # A client refuses a server of its own name, and containers of this host may send here.
    return Security(f"taffrail.{config.collector.host}", key, inputs.forward_users)


def _key_in(file: str) -> str:
    if not file:
        return ""
    where = f"[inputs] forward_shared_key_file {file}"
    try:
        key = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise CommandError(f"{where}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise CommandError(f"{where}: expected UTF-8 text") from None
    if not key:
        raise CommandError(f"{where}: the file is empty, expected the key")
    return key


def forward_tls(config: Config) -> ssl.SSLContext | None:
    """The input's TLS; None without a certificate. Raises CommandError for files that cannot be used."""
    return input_tls("forward_tls", config.inputs.forward_tls_cert, config.inputs.forward_tls_key)
