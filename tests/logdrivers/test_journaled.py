"""What gelf, fluentd and syslog have alike: lines are in the journal, whatever becomes of the sink."""

from __future__ import annotations

from pathlib import Path

import pytest

from logdrivers import registry
from logdrivers.block import Block, Encoding, Stream
from logdrivers.driver import Info, OptionError
from logdrivers.journal import Mark

ADDRESSES = {"gelf": {"gelf-address": "udp://127.0.0.1:1"}, "fluentd": {}, "syslog": {}}


@pytest.mark.parametrize("name", ADDRESSES)
def test_lines_are_readable_without_a_sink(name: str, tmp_path: Path) -> None:
    driver = registry.get(name)
    options = {**ADDRESSES[name], "journal-max-size": "1m"}
    driver.validate(options)
    info = Info("1" * 64, "/web", "sha256:" + "2" * 64, "image", ("sh",), 0, tmp_path, options)
    journal = driver.journal(info)
    journal.resume()
    block = Block(b"a\nb\n", Encoding.LINES, Stream.STDOUT, 10**18, 10**18, 2)
    journal.append(block, Mark(4, 0))
    journal.close()
    reader = driver.reader(info)
    assert reader is not None
    assert [entry.block for entry in reader.read(reader.first()).entries] == [block]
    reader.close()
    sink = driver.sink(info)
    assert sink is not None
    sink.close()


@pytest.mark.parametrize("name", ADDRESSES)
@pytest.mark.parametrize(
    ("option", "what"),
    [
        ({"journal-max-size": "1k"}, "journal-max-size must be at least"),
        ({"journal-max-size": "x"}, "invalid size: 'x'"),
        ({"tag": "{{.Nome}}"}, "no field .Nome"),
        ({"env-regex": "["}, "env-regex"),
    ],
)
def test_what_cannot_work_is_refused_at_create(name: str, option: dict[str, str], what: str) -> None:
    with pytest.raises(OptionError, match=what):
        registry.get(name).validate({**ADDRESSES[name], **option})
