"""Typed reading of a JSON object that came over the Engine API: each accessor checks one field's type.

A wrong type raises FieldError with the field's full path and what was expected; absent and ``null`` are the
same, as for Go's decoder. What the fields mean is left to whoever reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from runtime.errors import BadRequest

__all__ = ["FieldError", "Fields"]

T = TypeVar("T")


class FieldError(BadRequest):
    """A field of a request body has the wrong type or an impossible value (HTTP 400)."""


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the string {value!r}"
    if isinstance(value, list):
        return "an array"
    return "an object" if isinstance(value, dict) else type(value).__name__


class Fields:
    """One JSON object and the path that leads to it (``HostConfig.RestartPolicy``)."""

    __slots__ = ("path", "raw")

    def __init__(self, raw: object, path: str = "") -> None:
        self.path = path
        if raw is None:
            raw = {}
        if not isinstance(raw, dict):
            raise FieldError(f"{path or 'request body'}: expected an object, got {_kind(raw)}")
        self.raw: Mapping[str, Any] = raw

    def where(self, name: str) -> str:
        """The full path of a field, for error texts."""
        return f"{self.path}.{name}" if self.path else name

    def refuse(self, name: str, expected: str) -> FieldError:
        """The error for a field that holds something else than ``expected``."""
        return FieldError(f"{self.where(name)}: expected {expected}, got {_kind(self.raw.get(name))}")

    def string(self, name: str, default: str = "") -> str:
        """A string, or ``default`` when absent."""
        value = self.raw.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.refuse(name, "a string")
        return value

    def integer(self, name: str, default: int = 0) -> int:
        """A 64-bit signed integer (a float without a fraction counts, as JSON has only numbers)."""
        value = self.optional_integer(name)
        return default if value is None else value

    def optional_integer(self, name: str) -> int | None:
        """Like ``integer``, with None for absent."""
        value = self.raw.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
            raise self.refuse(name, "a 64-bit integer")
        return value

    def boolean(self, name: str, default: bool = False) -> bool:
        """A boolean, or ``default`` when absent."""
        value = self.optional_boolean(name)
        return default if value is None else value

    def optional_boolean(self, name: str) -> bool | None:
        """Like ``boolean``, with None for absent."""
        value = self.raw.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.refuse(name, "a boolean")
        return value

    def strings(self, name: str) -> tuple[str, ...]:
        """An array of strings; empty when absent."""
        value = self.raw.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.refuse(name, "an array of strings")
        return tuple(value)

    def words(self, name: str) -> tuple[str, ...] | None:
        """Docker's ``strslice``: an array of strings or one string; None when absent."""
        value = self.raw.get(name)
        if value is None:
            return None
        return (value,) if isinstance(value, str) else self.strings(name)

    def string_map(self, name: str) -> dict[str, str]:
        """An object whose values are strings; a ``null`` value counts as the empty string."""
        out: dict[str, str] = {}
        for key, value in self.object(name).raw.items():
            if value is not None and not isinstance(value, str):
                raise FieldError(f"{self.where(name)}.{key}: expected a string, got {_kind(value)}")
            out[key] = value or ""
        return out

    def keys(self, name: str) -> tuple[str, ...]:
        """The keys of an object used as a set (ExposedPorts, Volumes)."""
        return tuple(self.object(name).raw)

    def object(self, name: str) -> Fields:
        """The object under ``name``; an empty one when absent."""
        return Fields(self.raw.get(name), self.where(name))

    def objects(self, name: str, parse: Callable[[Fields], T]) -> tuple[T, ...]:
        """An array of objects, each put through ``parse``."""
        value = self.raw.get(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.refuse(name, "an array of objects")
        return tuple(parse(Fields(item, f"{self.where(name)}[{i}]")) for i, item in enumerate(value))

    def object_map(self, name: str, parse: Callable[[Fields], T]) -> dict[str, T]:
        """An object of objects, each put through ``parse``."""
        return {
            key: parse(Fields(value, f"{self.where(name)}.{key}"))
            for key, value in self.object(name).raw.items()
        }
