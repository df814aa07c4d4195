"""Drivers are found by name, ours and those of installed packages."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

from logdrivers import registry
from logdrivers.driver import OptionError
from logdrivers.none import NoneDriver


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def found(group: str) -> list[EntryPoint]:
        assert group == "taffrail.log_drivers"
        return [
            EntryPoint("silent", "logdrivers.none:NoneDriver", group),
            EntryPoint("broken", "no.such.module:Driver", group),
        ]

    monkeypatch.setattr("importlib.metadata.entry_points", found)
    registry._plugins.cache_clear()
    yield
    registry._plugins.cache_clear()


def test_ours_are_found_and_json_file_is_the_default() -> None:
    assert {"json-file", "local", "gelf", "fluentd", "syslog", "journald", "none"} <= set(registry.names())
    for name in registry.BUILTIN:
        assert registry.get(name).name == name
        assert registry.known(name)
    assert registry.get("").name == "json-file"


def test_an_unknown_name_is_refused_in_dockers_words() -> None:
    with pytest.raises(OptionError, match=r"^logger: no log driver named 'nope' is registered$"):
        registry.get("nope")
    assert not registry.known("nope")


@pytest.mark.usefixtures("plugins")
def test_plugins_come_in_by_entry_points() -> None:
    assert "silent" in registry.names()
    assert registry.known("silent")
    assert isinstance(registry.get("silent"), NoneDriver)
    with pytest.raises(OptionError, match=r"log driver 'broken' .* did not load"):
        registry.get("broken")
