import pytest

from taffrail.stats_filter import NUMBERS, FilterError, number_of, parse_filter

MIB = 1024 * 1024


def row(name: str = "web1", **values: object) -> dict[str, object]:
    return {
        "id": "0123456789abcdef" * 4,
        "name": name,
        "image": "nginx:1.25",
        "state": "running",
        "engine": "docker",
        "health": "healthy",
        "host": "alpha",
        "labels": {"com.docker.compose.project": "shop", "tier": "Front"},
        "time_ns": 1,
        "cpu_percent": 2.5,
        "memory_usage_bytes": 10 * MIB,
        "memory_limit_bytes": 20 * MIB,
        "memory_percent": 50.0,
        "net_rx_bytes": 7000,
        "net_tx_bytes": 1000,
        "net_rx_bytes_per_second": 2048.0,
        "net_tx_bytes_per_second": 1024.0,
        "block_read_bytes": 0,
        "block_write_bytes": 5,
        "block_read_bytes_per_second": 0.0,
        "block_write_bytes_per_second": 5.0,
        "pids": 3,
        **values,
    }


@pytest.mark.parametrize(
    "expression",
    [
        "cpu > 2",
        "cpu>2%",
        "CPU >= 2.5",
        "cpu=2.5",
        "cpu:2.5",
        "cpu != 2",
        "memory = 10mb",
        "memory >= 10MiB",
        "mem < 11m",
        "memory < 0.02g",
        "memory = 50%",
        "mem% >= 50",
        "memory% < 51%",
        "memory.limit = 20mb",
        "rx = 2kb",
        "rx >= 2kb/s",
        "tx < 2000",
        "net = 3kb",
        "net.total = 8000",
        "block = 5",
        "write > 4b/s and read = 0",
        "write.total = 5",
        "pids <= 3",
        "name:web*",
        "name:WEB?",
        "name=web1",
        "name != web2",
        "image:nginx:*",
        "image = nginx:1.25",
        "id:0123456",
        "id:*def",
        "state:running engine:docker",
        "health:healthy host:alpha",
        "label.com.docker.compose.project:shop",
        "label.tier:front",
        "label.tier=Front",
        "label.missing != x",
        "name:'web1'",
        'name:"web*" and image:"nginx*"',
        "cpu > 2 and name:web*",
        "cpu > 90 or pids = 3",
        "not cpu > 90",
        "not (cpu > 90 or name:db*)",
        "cpu > 90 and name:x or name:web1",
        "cpu > 90 and (name:x or name:web1) or pids:3",
        "NOT name:db AND cpu>2",
    ],
)
def test_what_matches(expression: str) -> None:
    assert parse_filter(expression)(row())
    assert not parse_filter(f"not ({expression})")(row())


@pytest.mark.parametrize(
    "expression",
    [
        "cpu > 2.5",
        "memory > 10mb",
        "name:web",
        "name=WEB1",
        "label.tier=front",
        "label.missing:x",
        "cpu > 90 and (name:x or name:web1)",
        "not not cpu > 90",
        "id=0123456",
    ],
)
def test_what_does_not_match(expression: str) -> None:
    assert not parse_filter(expression)(row())


def test_without_a_sample_no_number_matches() -> None:
    late = row(time_ns=0, cpu_percent=0.0)
    assert not parse_filter("cpu < 5")(late)
    assert not parse_filter("cpu != 5")(late)
    assert parse_filter("name:web1")(late)
    assert number_of(late, NUMBERS["cpu"]) is None


@pytest.mark.parametrize(
    ("expression", "position", "words"),
    [
        ("", 1, "empty"),
        ("   ", 4, "empty"),
        ("cpuu > 2", 1, "did you mean 'cpu'"),
        ("frob > 2", 1, "expected one of cpu, memory"),
        ("cpu", 4, "> >= < <= = != or :"),
        ("cpu >", 6, "value after 'cpu >'"),
        ("cpu ~ 3", 5, "found '~'"),
        ("cpu > lots", 7, "2 or 2%"),
        ("cpu > 2mb", 7, "2 or 2%"),
        ("memory > 10mb/s", 10, "10mb or 2GiB, or 50%"),
        ("rx > 10%", 6, "10kb or 1mb/s"),
        ("pids > 3k", 8, "20"),
        ("name > web", 6, "= != or :"),
        ("name:'web", 6, "closing '"),
        ("(cpu > 2", 9, "expected ')'"),
        ("cpu > 2)", 8, "expected 'and', 'or' or the end"),
        ("cpu > 2 and", 12, "expected a field"),
        ("cpu > 2 or or cpu > 3", 12, "expected a field"),
        ("not", 4, "expected a field"),
        ("()", 2, "expected a field"),
        ("cpu > 2 webb", 9, "no field 'webb'"),
        ("label. = x", 1, "no field"),
        ("not " * 200 + "cpu > 2", 401, "more than 100 levels"),
    ],
)
def test_an_error_says_where_and_what_was_expected(expression: str, position: int, words: str) -> None:
    with pytest.raises(FilterError) as raised:
        parse_filter(expression)
    assert str(raised.value).startswith(f"at position {position}: ")
    assert words in str(raised.value)
