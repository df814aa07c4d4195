"""Every command is there, says what it does, and is documented."""

import re
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

from collector.store import Store
from taffrail.__main__ import COMMANDS, main
from taffrail.agent_exporters import make_elasticsearch
from taffrail.config_load import load
from taffrail.errors import CommandError
from taffrail.wiring import make_paths

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_stands_in_the_docs(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: taffrail {command}" in capsys.readouterr().out
    assert f"`taffrail {command}" in (DOCS / "commands.md").read_text()


def test_a_wrong_setting_is_answered_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--set", "http.adress=1", "config"]) == 2
    assert "did you mean 'address'" in capsys.readouterr().err


def test_stats_without_an_agent_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--set", f"paths.run={tmp_path}", "stats", "--no-stream"]) == 1
    assert "start one with 'taffrail up'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ps", "-f", "cpu >"], "ps: --filter 'cpu >': at position 6: expected a value after 'cpu >'"),
        (["ps", "--at", "25:00"], "ps: --at: '25:00' is not a time of day"),
        (["top", "-d", "0"], "top: --delay 0.0: expected 0.1 to 3600 seconds"),
        (["search", "--since", "soon", "x"], "search: 'soon' is not a time: expected a duration like 10m"),
        (["search", "-n", "0", "x"], "search: --limit 0: expected a number, 1 or more"),
        (["plugin", "--name", "a/b"], "plugin: --name 'a/b': expected a name without slashes"),
    ],
)
def test_what_cannot_be_read_is_named_with_status_2(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--set", f"paths.run={tmp_path}", *words]) == 2
    assert f"taffrail {said}" in capsys.readouterr().err


def test_a_directory_that_cannot_be_made_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboards", "write", "/proc/nowhere"]) == 1
    assert "taffrail dashboards: cannot write /proc/nowhere/" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("hosts=nowhere", "hosts: expected http://host:port or https://host:port, got 'nowhere'"),
        ("data_stream=Logs", "data_stream: expected a lower-case name like logs-app-default, got 'Logs'"),
        ("batch_size=0", "batch_size: expected more than 0, got 0"),
    ],
)
def test_what_the_agent_cannot_take_for_elasticsearch_is_named(setting: str, said: str) -> None:
    config = load(None, {}, ["elasticsearch.hosts=http://127.0.0.1:1", f"elasticsearch.{setting}"])
    with pytest.raises(CommandError, match=rf"^\[elasticsearch\] {re.escape(said)}$"):
        make_elasticsearch(config, make_paths(config), cast(Store, None))


def test_help_does_not_import_what_only_the_services_need() -> None:
    heavy = "'numpy', 'aiohttp', 'elasticsearch', 'pyroute2', 'prometheus_client', 'requests'"
    code = f"import sys, taffrail.__main__ as m; m.make_parser(); print([n for n in [{heavy}] if n in sys.modules])"
    answer = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_an_agent_without_elasticsearch_does_not_carry_its_client() -> None:
    code = "import sys, taffrail.agent; print([n for n in ('elasticsearch', 'elastic_transport') if n in sys.modules])"
    answer = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
