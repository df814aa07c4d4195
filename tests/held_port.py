"""Ports for servers that are told theirs beforehand, and which nobody else is given; tests import it by name."""

from __future__ import annotations

import socket


def hold_port(host: str = "127.0.0.1") -> socket.socket:
    """A socket that is bound and does not listen; its port is ``getsockname()[1]``.

    While it is open the kernel gives the port to nobody who asks for any, a connection's own end included. A server
    that sets SO_REUSEADDR, as nearly all do, can bind it all the same, and again after it was stopped.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((host, 0))
    return held
