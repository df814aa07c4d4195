"""An HTTP server that takes every POST and forgets it, in a process of its own; with TLS if so asked."""

from __future__ import annotations

import contextlib
import multiprocessing
import re
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

__all__ = ["http_receiver"]

_ANSWER = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nkeep-alive: timeout=5\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)


@contextlib.contextmanager
def http_receiver(tls: bool = False) -> Iterator[int]:
    """Its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        context = _context() if tls else None
        child = multiprocessing.get_context("fork").Process(
            target=_receive, args=(server, context), daemon=True
        )
        child.start()
        try:
            yield server.getsockname()[1]
        finally:
            child.terminate()
            child.join()


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as name:
        key, certificate = Path(name, "key.pem"), Path(name, "cert.pem")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-keyout", key, "-out", certificate, "-days", "1", "-subj", "/CN=127.0.0.1"],
            check=True, capture_output=True,
        )  # fmt: skip
        context.load_cert_chain(certificate, key)
    return context


def _receive(server: socket.socket, context: ssl.SSLContext | None) -> None:
    while True:
        sock = server.accept()[0]
        threading.Thread(target=_drain, args=(sock, context), daemon=True).start()


def _drain(sock: socket.socket, context: ssl.SSLContext | None) -> None:
    if context is not None:
        sock = context.wrap_socket(sock, server_side=True)
    buffer = b""
    while data := sock.recv(1 << 20):
        buffer += data
        at = answers = 0
        while (end := buffer.find(b"\r\n\r\n", at)) >= 0:
            length = _LENGTH.search(buffer, at, end + 2)
            assert length is not None
            behind = end + 4 + int(length[1])
            if behind > len(buffer):
                break
            at = behind
            answers += 1
        buffer = buffer[at:]
        sock.sendall(_ANSWER * answers)
