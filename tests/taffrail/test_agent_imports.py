"""What an agent does not have in memory before somebody uses it: kilobytes by the hundred, or megabytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

#: With what they are for.
UNUSED = {
    "numpy": "searching, sealing of logs, questions about the past",
    "elasticsearch": "an exporter that is switched on",
    "exporters.elasticsearch.exporter": "the same",
    "exporters.remote_write.exporter": "the same",
    "cramjam": "the same",
    "collector.search": "a search",
    "collector.query": "a search",
    "collector.segments.sealing": "logs",
    "collector.inputs.gelf": "an input that is switched on",
    "collector.inputs.gelf_http": "the same",
    "collector.inputs.forward": "the same",
    "logdrivers.plugin.container": "the plugin's process",
    "logdrivers.gelf": "a container that logs with it",
    "runtime.engine": "the engine's process",
    "pyroute2": "the engine's process",
    "importlib.metadata": "plugins and programs that ask for versions",
    "multiprocessing": "nobody",
    "tomllib": "a configuration file",
    "difflib": "a misspelling",
}


def modules_after(code: str, *arguments: str) -> set[str]:
    """What a fresh interpreter has imported when it has run the code."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"{code}\nimport sys; print(*sys.modules)", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_an_agent_imports_nothing_that_only_some_use() -> None:
    found = modules_after(
        "from taffrail.__main__ import make_parser\n"
        "from taffrail.config_load import load\n"
        "make_parser(['agent']); load(environ={}, settings=['inputs.gelf=', 'inputs.forward='])\n"
        "import taffrail.cli.agent, taffrail.agent, taffrail.logs\n"
    )
    assert "aiohttp" in found
    assert {name: use for name, use in UNUSED.items() if name in found} == {}


def test_history_is_recorded_sealed_and_opened_again_without_numpy(tmp_path: Path) -> None:
    found = modules_after(
        "import sys; from pathlib import Path\n"
        "from collector.history.archive import Archive\n"
        "from collector.history.rows import Definition\n"
        "from collector.history.steps import make_rows\n"
        "archive = Archive(Path(sys.argv[1])); archive.define(Definition(1, 'a' * 64, 'web', '', ''))\n"
        "for step in range(20):\n"
        "    us = (1760000000 + step * 10) * 1000000\n"
        "    archive.append(us, make_rows([(1, 0, 10, us, step, *[0] * 12)]), us * 1000)\n"
        "archive.fine.roll(); archive.close(); archive = Archive(Path(sys.argv[1]))\n"
        "assert archive.last()['a' * 64].totals[0] == 19, archive.last()\n"
        "archive.close()\n",
        str(tmp_path),
    )
    assert "numpy" not in found


@pytest.mark.parametrize("sealed", [False, True])
def test_a_store_of_few_lines_is_written_and_opened_again_without_numpy(tmp_path: Path, sealed: bool) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from collector.sink import Source; from collector.store import Store\n"
        "from logdrivers.block import Block, Encoding, Stream\n"
        "store = Store(Path(sys.argv[1]), background=False, segment_bytes=64 << 10)\n"
        "held = store.counters().held_lines\n"
    )
    write = (
        "source = Source('a' * 64, 'web', '', 'host', 'json-file')\n"
        'line = b\'{"log":"x\\\\n"}\\n\'\n'
        "for number in range(8000 if sys.argv[2] else 8):\n"
        "    store.append(source, Block(line, Encoding.JSON_FILE, Stream.STDOUT, 1, 1, 1), ('key', b'1'))\n"
    )
    end = "if sys.argv[2]: store.maintain()\nstore.close()\n"
    argument = "sealed" if sealed else ""
    written = modules_after(code + write + end, str(tmp_path), argument)
    assert ("numpy" in written) is sealed
    opened = modules_after(
        code + f"assert held == {8000 if sealed else 8}, held\nstore.close()\n", str(tmp_path), argument
    )
    assert "numpy" not in opened
