"""What Docker Engine 20.10.24's drivers sent for containers of ``tests/golden``, and those containers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from logdrivers.codecs.json_file import parse_time
from logdrivers.driver import Info

DIRECTORY = Path(__file__).parents[2] / "golden" / "docker-20.10.24"

#: What each of the captured containers wrote, as Docker splits it: (stream, text, partial ordinal and last).
WRITTEN: tuple[tuple[str, bytes, tuple[int, bool] | None], ...] = (
    ("stdout", b'plain <&> "q" tab\tend', None),
    ("stdout", b"", None),
    ("stdout", b"\r", None),
    ("stdout", b"back\\slash \\u0009 \x1b[1m\x07", None),
    ("stdout", b"caf\xc3\xa9 \xff\xfe \xe2\x82 \xe2\x80\xa8", None),
    ("stderr", b"err", None),
    ("stdout", b"x" * 16384, (1, False)),
    ("stdout", b"x", (2, True)),
    ("stdout", b"no newline", (1, False)),
)


class Captures:
    """Captures by name: ``gelf``, ``forward``, ``forward-sub-second``."""

    written = WRITTEN

    def stream(self, name: str) -> bytes:
        """The bytes sent."""
        return (DIRECTORY / f"{name}.bin").read_bytes()

    def container(self, name: str) -> Info:
        """The container that wrote them."""
        facts = json.loads((DIRECTORY / "containers.json").read_text())[name]
        return Info(
            container_id=facts["container_id"],
            container_name=facts["container_name"],
            image_id=facts["image_id"],
            image_name=facts["image_name"],
            command=facts["command"],
            created_ns=parse_time(facts["created"].encode()),
            directory=Path("/nonexistent"),
            options=facts["options"],
            labels=facts["labels"],
            env=facts["env"],
            hostname="vm",
        )


@pytest.fixture(scope="session")
def captures() -> Captures:
    return Captures()
