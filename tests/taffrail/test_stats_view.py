from __future__ import annotations

import pytest

from taffrail.errors import CommandError
from taffrail.stats_view import make_view


def row(name: str, cpu: float, host: str = "alpha", **more: object) -> dict[str, object]:
    return {
        "name": name,
        "id": name.encode().hex() + "0" * 20,
        "host": host,
        "cpu_percent": cpu,
        "time_ns": 1,
        "labels": {"tier": name[::-1]},
        **more,
    }


ROWS = [row("web2", 5.0), row("db", 90.0, "beta"), row("web1", 2.0, "beta"), row("late", 0.0, time_ns=0)]


def shown(**options: object) -> list[str]:
    return [str(found["name"]) for found in make_view(**options).of(ROWS)]  # type: ignore[arg-type]


def test_by_name_unless_told_otherwise_and_without_a_sample_last() -> None:
    assert shown() == ["db", "web1", "web2", "late"]
    assert shown(reverse=True) == ["web2", "web1", "db", "late"]


def test_numbers_sort_largest_first_and_turn_round() -> None:
    assert shown(sort="cpu") == ["db", "web2", "web1", "late"]
    assert shown(sort="-cpu") == shown(sort="CPU", reverse=True) == ["web1", "web2", "db", "late"]
    assert shown(sort="-cpu", reverse=True) == shown(sort="cpu")
    assert shown(sort="cpu", limit=2) == ["db", "web2"]


def test_texts_sort_a_to_z() -> None:
    assert shown(sort="host") == ["web2", "db", "web1", "late"]
    assert shown(sort="label.tier") == ["web1", "web2", "db", "late"]


def test_filter_and_names() -> None:
    assert shown(filter_text="cpu > 2 and name:web*") == ["web2"]
    view = make_view(["web1", "6462", "nobody"])
    assert [str(found["name"]) for found in view.of(ROWS)] == ["db", "web1"]
    assert view.missing(ROWS) == ["nobody"]


def test_a_name_goes_before_the_beginning_of_an_id() -> None:
    rows = [*ROWS, row("6462", 1.0), row("6462", 1.0, "beta")]  # as the id of db begins
    view = make_view(["6462"])
    assert [(found["name"], found["host"]) for found in view.of(rows)] == [
        ("6462", "alpha"),
        ("6462", "beta"),
    ]
    assert view.missing(rows) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sort": "colour"}, "--sort 'colour': expected one of cpu, memory"),
        ({"filter_text": "cpu >"}, "--filter 'cpu >': at position 6: expected a value"),
        ({"limit": -1}, "--limit -1: expected"),
    ],
)
def test_what_cannot_be_read_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(CommandError) as raised:
        make_view(**options)  # type: ignore[arg-type]
    assert str(raised.value).startswith(message)
