"""TLS of the inputs that receive log messages: certificate and key as ``[inputs]`` of the configuration names them."""

from __future__ import annotations

import ssl

from taffrail.errors import CommandError

__all__ = ["input_tls"]


def input_tls(name: str, cert: str, key: str) -> ssl.SSLContext | None:
    """A server's context from ``NAME_cert`` and ``NAME_key``, PEM files; None without a certificate.

    Raises CommandError for files that cannot be used, and for a key alone.
    """
    if not cert:
        if key:
            raise CommandError(f"[inputs] {name}_key needs {name}_cert")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key or None)
    except OSError as error:  # ssl.SSLError is one
        raise CommandError(f"[inputs] {name}_cert {cert}, {name}_key {key or cert}: {error}") from error
    return context
