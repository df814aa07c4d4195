from __future__ import annotations

from pathlib import Path

import pytest

from exporters.elasticsearch.config import ElasticsearchConfig


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("hosts", (), "at least one URL"),
        ("hosts", ("es:9200",), "http://host:port"),
        ("data_stream", "Logs", "lower-case"),
        ("data_stream", "", "lower-case"),
        ("data_stream", "a b", "lower-case"),
        ("compression", "zstd", "auto, gzip or none"),
        ("batch_bytes", 0, "more than 0"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, option, value, text):
    options = {"hosts": ("http://es:9200",), "state_directory": tmp_path, option: value}
    with pytest.raises(ValueError, match=f"^{option}: expected .*{text}"):
        ElasticsearchConfig(**options)


def test_one_way_to_authenticate(tmp_path):
    with pytest.raises(ValueError, match="got several"):
        ElasticsearchConfig(("http://es:9200",), tmp_path, username="u", api_key="k")


@pytest.mark.parametrize(
    ("hosts", "compression", "expected"),
    [
        (("http://127.0.0.1:9200",), "auto", False),
        (("http://[::1]:9200", "http://localhost"), "auto", False),
        (("http://localhost", "http://es"), "auto", True),
        (("http://es",), "none", False),
        (("http://localhost",), "gzip", True),
    ],
)
def test_compression(tmp_path, hosts, compression, expected):
    assert ElasticsearchConfig(hosts, tmp_path, compression=compression).gzip is expected


@pytest.mark.parametrize(
    ("name", "parts"),
    [("logs-app-default", ("logs", "app", "default")), ("logs-a-b-c", ("logs", "a", "b-c")), ("index", None)],
)
def test_parts_of_a_data_stream(tmp_path, name, parts):
    assert ElasticsearchConfig(("http://es",), tmp_path, data_stream=name).data_stream_parts == parts
