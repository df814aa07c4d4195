import tomllib
from pathlib import Path

import pytest

from taffrail.cli.config import render, render_docs
from taffrail.config import Config
from taffrail.config_checks import without_effect
from taffrail.config_load import ConfigError, load

DOCS = Path(__file__).parents[2] / "docs"


def test_flags_win_over_the_environment_and_the_environment_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text(
        '[http]\naddress = "127.0.0.1:1"\n[store]\nmax_size = "1GiB"\n[collector]\ninterval = 5\n'
    )
    environ = {"TAFFRAIL_HTTP_ADDRESS": "127.0.0.1:2", "TAFFRAIL_STORE_MAX_SIZE": "2GiB"}
    config = load(file, environ, ["http.address=127.0.0.1:3"])
    assert config.http.address == "127.0.0.1:3"
    assert config.store.max_size == 2 * 1024**3
    assert config.collector.interval == 5.0


def test_a_section_of_two_words_is_set_by_the_environment() -> None:
    config = load(None, {"TAFFRAIL_REMOTE_WRITE_QUEUE_SIZE": "1GiB", "TAFFRAIL_COMMAND": "./run"})
    assert config.remote_write.queue_size == 1 << 30
    with pytest.raises(ConfigError, match="no section 'htp'; did you mean 'http'"):
        load(None, {"TAFFRAIL_HTP_ADDRESS": "x"})


def test_tables_take_single_entries(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text('[engine.log_opts]\nmax-size = "10m"\n')
    config = load(file, {}, ["engine.log_opts.max-file=3"])
    assert dict(config.engine.log_opts) == {"max-size": "10m", "max-file": "3"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("http.adress=x", "no key 'adress' in section 'http'; did you mean 'address'"),
        ("htp.address=x", "no section 'htp'; did you mean 'http'"),
        ("store.max_size=big", "'big' is not a size"),
        ("collector.interval=soon", "'soon' is not a duration"),
        ("collector.interval=0", "[collector] interval 0.0: expected a time between 100ms and 1m"),
        ("collector.interval=10ms", "interval 0.01: expected a time between 100ms and 1m"),
        ("collector.interval=2h", "interval 7200.0: expected a time between 100ms and 1m"),
        ("collector.process_history_interval=2h", "expected a time between 1s and 1m"),
        (
            "collector.history_max_size=10",
            "[collector] history_max_size 10B: expected 1MiB or more, or 0 for none",
        ),
        ("store.max_size=0", "[store] max_size 0B: expected 1MiB or more$"),
        ("remote_write.interval=0", "[remote_write] interval 0.0: expected a time between 1s and 1h"),
        ("engine.journal_max_bytes=100", "[engine] journal_max_bytes 100B: expected 1MiB or more$"),
        ("collector.host_groups=all,-netsat", "no group of host counters 'netsat'; did you mean 'netstat'"),
        ("elasticsearch.verify_certs=maybe", "expected true or false"),
        ("prometheus.max_series=-1", "'-1': expected a whole number, 0 or more"),
        (
            "prometheus.label_aliases=name=id",
            "label_aliases: label alias name=id: expected letters",
        ),
        ("collector.group_intervals=tcp=soon", "group_intervals: 'soon' is not a duration"),
        ("prometheus.max_series=many", "setting 'prometheus.max_series=many'"),
        ("engine.log_opts=max-size", "expected KEY=VALUE"),
        ("log.level=loud", "expected debug, info, warning or error"),
        ("nonsense", "expected SECTION.KEY=VALUE"),
    ],
)
def test_what_is_wrong_is_named_with_what_was_expected(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        load(None, {}, [setting])


def test_a_wrong_type_in_the_file_is_named_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text("[http]\naddress = 9480\n")
    with pytest.raises(ConfigError, match=r"t.toml: \[http\] address: 9480: expected text"):
        load(file, {})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[store]\nmax_age = -1", r"\[store\] max_age: -1: expected a time of 0 or more"),
        ("[store]\nmax_age = nan", r"\[store\] max_age: nan: expected a time of 0 or more"),
        ("[store]\nmax_size = -5", r"\[store\] max_size: -5: expected a size of 0 or more"),
    ],
)
def test_numbers_that_toml_knows_and_nobody_means(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "t.toml"
    file.write_text(line)
    with pytest.raises(ConfigError, match=message):
        load(file, {})


def test_0_keeps_no_history() -> None:
    assert load(None, {}, ["collector.history_max_size=0"]).collector.history_max_size == 0


def test_what_is_set_without_effect_is_told() -> None:
    assert without_effect(Config()) == []
    settings = [
        "inputs.forward=",
        "inputs.forward_shared_key_file=/key",
        "inputs.gelf=",
        "inputs.gelf_tls_cert=/cert.pem",
        "remote_write.interval=30s",
        "elasticsearch.username=elastic",
        "collector.connections=false",
        "collector.connection_history_max_size=1GiB",
    ]
    assert without_effect(load(None, {}, settings)) == [
        "inputs.gelf_tls_cert has no effect: inputs.gelf and inputs.gelf_http are empty",
        "inputs.forward_shared_key_file has no effect: inputs.forward is empty",
        "collector.connection_history_max_size has no effect: collector.connections is false",
        "elasticsearch.username has no effect: elasticsearch.hosts is empty",
        "remote_write.interval has no effect: remote_write.url is empty",
    ]
    settings += ["inputs.forward=127.0.0.1:0", "inputs.gelf_http=127.0.0.1:0", "collector.connections=true"]
    settings += ["elasticsearch.hosts=http://127.0.0.1:1", "remote_write.url=http://127.0.0.1:1/"]
    assert without_effect(load(None, {}, settings)) == []


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "none.toml", {})


def test_what_config_prints_is_the_same_configuration_again(tmp_path: Path) -> None:
    config = load(None, {}, ["engine.log_opts.max-size=10m", "collector.engines=/a,/b", "store.max_age=7d"])
    file = tmp_path / "again.toml"
    file.write_text(render(config))
    assert load(file, {}) == config


def test_secrets_are_not_shown() -> None:
    shown = tomllib.loads(render(load(None, {}, ["elasticsearch.password=hunter2"])))
    assert shown["elasticsearch"]["password"] == "********"


def test_the_reference_page_has_every_key_as_it_is() -> None:
    assert render_docs() in (DOCS / "configuration.md").read_text()
    assert Config()
