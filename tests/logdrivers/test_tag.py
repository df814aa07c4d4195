"""Tags: Docker's Go templates."""

from __future__ import annotations

from pathlib import Path

import pytest

from logdrivers.driver import Info, OptionError
from logdrivers.tag import check_tag, render_tag

INFO = Info(
    container_id="0123456789abcdef" * 4,
    container_name="/web_front-1",
    image_id="sha256:" + "fe" * 32,
    image_name="shop/web:1.2",
    command=("sh", "-c", "true"),
    created_ns=0,
    directory=Path("/nonexistent"),
    hostname="host-7",
    daemon_name="docker",
)


@pytest.mark.parametrize(
    ("template", "tag"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{{.ID}}", "0123456789ab"),
        ("{{ .Name }}/{{.FullID}}", "web_front-1/" + "0123456789abcdef" * 4),
        ("{{.Command}}", "sh -c true"),
        ("{{.ImageID}}", "sha256:fefef"),
        ("{{.ImageFullID}}", "sha256:" + "fe" * 32),
        ("{{.ImageName}}@{{.Hostname}}@{{.DaemonName}}", "shop/web:1.2@host-7@docker"),
        ('{{join (split .ImageName "/") "_"}}', "shop_web:1.2"),
        ("{{.Name | upper}}", "WEB_FRONT-1"),
        ("{{lower (upper .Name)}}", "web_front-1"),
        ("{{title .Name}}", "Web_front-1"),
        ('{{title "a b-c"}}', "A B-C"),
        ("{{truncate .Name 3}}", "web"),
        ("{{truncate .Name 300}}", "web_front-1"),
        ("[{{pad .Name 1 2}}]", "[ web_front-1  ]"),
        ('[{{pad "" 1 2}}]', "[]"),
        ("{{json .Name}}", '"web_front-1"'),
        ('{{json (split .Name "_")}}', '["web","front-1"]'),
        ('{{split .Name "_"}}', "[web front-1]"),
        ('{{index (split .Name "_") 1 | upper | json}}', '"FRONT-1"'),
        ("{{`raw`}}{{/* nothing */}}", "raw"),
        ("a  {{- .ID -}}  b", "a0123456789abb"),
        ('{{split .Name "" | len}}', "11"),
    ],
)
def test_templates(template: str, tag: str) -> None:
    assert render_tag(template, INFO) == tag


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{.Foo}}", "no field .Foo"),
        ("{{foo .ID}}", 'function "foo" not defined'),
        ("{{if .ID}}x{{end}}", "'if' is not supported"),
        ("{{.ID", "unclosed action"),
        ("{{}}", "missing value"),
        ("{{.ID |}}", "missing value"),
        ("{{(.ID}}", "unclosed left paren"),
        ("{{.ID)}}", r"unexpected '\)'"),
        ("{{.ID .Name}}", "not a function"),
        ("{{upper}}", "wrong number of args for upper: want 1 got 0"),
        ("{{truncate .ID .Name}}", "wrong type of value for truncate"),
        ('{{index (split .ID "-") 4}}', "error calling index"),
        ("{{$x := .ID}}", r"unexpected '\$'"),
    ],
)
def test_what_is_not_understood_is_named(template: str, why: str) -> None:
    with pytest.raises(OptionError, match=why) as caught:
        render_tag(template, INFO)
    assert "log tag template" in str(caught.value)


def test_a_template_is_checked_without_a_container() -> None:
    check_tag("{{.Name}}-{{.ID}}")
    with pytest.raises(OptionError, match="no field"):
        check_tag("{{.Nome}}")
