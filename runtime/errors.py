"""What the engine refuses, with the HTTP status and the words Docker's clients know.

The docker CLI, docker-py and compose look at the status and now and then at the text, so both are
Docker's. The API server turns any of these into ``{"message": …}``; nothing here knows of HTTP otherwise.
"""

from __future__ import annotations

__all__ = [
    "BadRequest",
    "Conflict",
    "EngineError",
    "Forbidden",
    "NotFound",
    "NotImplementedYet",
    "NotModified",
    "ServerError",
    "Unavailable",
    "no_such_container",
    "no_such_exec",
    "no_such_image",
    "no_such_network",
    "no_such_volume",
]


class EngineError(Exception):
    """An answer other than success. ``status`` is the HTTP status, ``message`` the text for the user."""

    status = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotModified(EngineError):
    """304: the container is in the wanted state already."""

    status = 304


class BadRequest(EngineError):
    """400: the request itself is wrong."""

    status = 400


class Forbidden(EngineError):
    """403: the operation is never allowed on this object."""

    status = 403


class NotFound(EngineError):
    """404: no object of this name or id."""

    status = 404


class Conflict(EngineError):
    """409: the state of the object is in the way."""

    status = 409


class ServerError(EngineError):
    """500: the request was right and the attempt failed."""

    status = 500


class NotImplementedYet(EngineError):
    """501: a documented operation that this engine does not serve."""

    status = 501


class Unavailable(EngineError):
    """503: the engine is stopping, or a part it needs is not there."""

    status = 503


def no_such_container(reference: str) -> NotFound:
    """The answer for an unknown container; the CLI prints it as it is."""
    return NotFound(f"No such container: {reference}")


def no_such_image(reference: str) -> NotFound:
    """The answer for an unknown image. ``docker run`` takes this 404 as the sign to pull."""
    return NotFound(f"No such image: {reference}")


def no_such_network(reference: str) -> NotFound:
    """The answer for an unknown network."""
    return NotFound(f"network {reference} not found")


def no_such_volume(reference: str) -> NotFound:
    """The answer for an unknown volume."""
    return NotFound(f"get {reference}: no such volume")


def no_such_exec(reference: str) -> NotFound:
    """The answer for an unknown exec instance."""
    return NotFound(f"No such exec instance: {reference}")
