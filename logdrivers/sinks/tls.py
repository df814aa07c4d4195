"""TLS for the log drivers that have it: four options alike, the context they make, and the handshake.

syslog, gelf and fluentd share it; which addresses mean TLS is each driver's own. ``logdrivers/sinks/stream_sink.py``
speaks over what ``secure`` returns.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from logdrivers.driver import OptionError, SinkDown
from logdrivers.options import parse_bool
from logdrivers.sinks.dial import readable

__all__ = ["Tls", "parse_tls", "secure", "take_in", "tls_options"]

#: How long a server is given to object to what the handshake told it.
_OBJECTION_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Tls:
    """Files with certificates and the key, in PEM; ``""`` is the system's authorities, and none of our own."""

    ca_cert: str = ""
    cert: str = ""
    key: str = ""
    skip_verify: bool = False

    def context(self) -> ssl.SSLContext:
        """Read the files. Raises OptionError in Docker's words for one that cannot be used."""
        context = ssl.create_default_context()
        if self.ca_cert:
            try:
                context.load_verify_locations(self.ca_cert)
            except OSError as error:  # ssl.SSLError is one
                raise OptionError(
                    f'could not read CA certificate "{self.ca_cert}": {_why(error, self.ca_cert)}'
                ) from None
        if self.cert or self.key:
            try:
                context.load_cert_chain(self.cert, self.key or None)
            except (OSError, ValueError) as error:
                raise OptionError(f"Could not load X509 key pair: {_why(error, self.cert)}") from None
        if self.skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def tls_options(driver: str) -> tuple[str, str, str, str]:
    """The options' names: ``gelf-tls-ca-cert``, ``-cert``, ``-key``, ``-skip-verify`` for ``gelf``."""
    head = f"{driver}-tls-"
    return head + "ca-cert", head + "cert", head + "key", head + "skip-verify"


def parse_tls(
    driver: str, options: Mapping[str, str], *, secured: bool, addresses: str, check_files: bool = True
) -> Tls | None:
    """What the driver's TLS options say, files read once to check them if so asked; None unless ``secured``.

    Raises OptionError for an option beside an address without TLS (``addresses`` says which have it), a flag
    that is none, and files that cannot be used.
    """
    ca_cert, cert, key, skip_verify = names = tls_options(driver)
    if not secured:
        for name in names:
            if name in options:
                raise OptionError(f"{name} is only valid for {addresses}")
        return None
    tls = Tls(
        options.get(ca_cert, ""),
        options.get(cert, ""),
        options.get(key, ""),
        bool(options.get(skip_verify)) and _flag(skip_verify, options[skip_verify]),
    )
    if check_files:
        tls.context()
    return tls


def _flag(name: str, text: str) -> bool:
    try:
        return parse_bool(text)
    except OptionError as error:
        raise OptionError(f"invalid {name}: {error}") from None


def _why(error: Exception, path: str = "") -> str:
    if isinstance(error, FileNotFoundError):
        return f"open {error.filename or path}: no such file or directory"
    return str(error)


def secure(
    sock: socket.socket, tls: Tls, host: str, name: str, *, server_answers: bool = False
) -> ssl.SSLSocket:
    """TLS over a connected ``sock``, which it takes over. ``name`` is the address, for messages.

    ``server_answers`` says that the server will say something before lines count as sent; an objection to our
    certificate, which it makes after the handshake, is then found there. The files are read anew each time:
    certificates are renewed while containers run. Raises SinkDown, OSError (ssl.SSLError is one); ``sock`` is
    then to be closed.
    """
    try:
        context = tls.context()
    except OptionError as error:
        raise SinkDown(f"cannot connect to {name}: {error}") from error
    secured = context.wrap_socket(sock, server_hostname=host or "localhost")
    if secured.version() is None:  # Python makes no handshake where the connection has ended
        secured.close()
        raise OSError("the server closed the connection before the handshake")
    if server_answers:
        return secured
    try:
        _await_objection(secured)
    except OSError:
        secured.close()
        raise
    return secured


def _await_objection(sock: ssl.SSLSocket) -> None:
    """In TLS 1.3 a server refuses a client's certificate when the client believes the handshake done.

    It answers at once all the same, with tickets or with an alert: what was sent before that would be lost.
    """
    if sock.version() == "TLSv1.3" and readable(sock, _OBJECTION_SECONDS):
        timeout = sock.gettimeout()
        sock.setblocking(False)
        try:
            if sock.recv(1) == b"":
                raise OSError("the server closed the connection after the handshake")
        except ssl.SSLWantReadError:
            pass
        finally:
            sock.settimeout(timeout)


def take_in(sock: ssl.SSLSocket) -> None:
    """Read what is there, before closing: bytes left unread make the kernel reset what the server still reads."""
    try:
        sock.setblocking(False)
        while sock.recv(4096):
            pass
    except OSError:  # nothing more to read, or no connection
        return
