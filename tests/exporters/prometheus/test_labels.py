import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from collector.container import Container
from exporters.prometheus.labels import LabelRules, escape, render

WEB = Container(
    id="1" * 64, name="web", image="nginx", engine="docker", labels={"a.b": "1", "a-b": "2", "c": "3"}
)


@given(st.text().filter(lambda text: "\0" not in text))
def test_any_value_comes_back(value: str) -> None:
    value = value.encode("utf-8", "replace").decode()
    line = f'a{{b="{escape(value)}"}} 1\n'
    (family,) = text_string_to_metric_families(line)
    assert family.samples[0].labels["b"] == value


def test_a_label_without_a_value_is_left_out() -> None:
    assert render({"a": "", "b": "1"}) == 'b="1"'


def test_two_keys_that_become_one_name_are_one_label() -> None:
    text = LabelRules(all=True).of(WEB)
    assert text.count("container_label_a_b=") == 1
    assert 'container_label_c="3"' in text


def test_only_allowed_labels() -> None:
    assert LabelRules(("c", "absent")).of(WEB) == (
        f'container_label_c="3",id="/docker/{"1" * 64}",image="nginx",name="web"'
    )


@pytest.mark.parametrize(
    ("aliases", "found"),
    [
        ({"container": "name"}, 'container="web"'),
        ({"pod": "label:c"}, 'pod="3"'),
        ({"pod": "label:absent"}, ""),
    ],
)
def test_aliases(aliases: dict[str, str], found: str) -> None:
    plain = LabelRules(()).of(WEB)
    assert LabelRules((), aliases=aliases).of(WEB) == (f"{found},{plain}" if found else plain)


@pytest.mark.parametrize(
    "aliases",
    [
        {"name": "image"},
        {"interface": "name"},
        {"a-b": "name"},
        {"__x": "id"},
        {"container_label_c": "id"},
        {"pod": "project"},
        {"pod": "label:"},
    ],
)
def test_an_alias_that_cannot_be_is_refused(aliases: dict[str, str]) -> None:
    (name,) = aliases
    with pytest.raises(ValueError, match=rf"label alias {name}=.*: expected "):
        LabelRules(aliases=aliases)


def test_containers_of_pods_carry_the_kubelets_labels() -> None:
    labels = {
        "io.kubernetes.container.name": "app",
        "io.kubernetes.pod.name": "shop-0",
        "io.kubernetes.pod.namespace": "prod",
    }
    found = LabelRules((), aliases={"container": "name"}).of(Container("1" * 64, "k8s_app", labels=labels))
    for part in ('container="app"', 'namespace="prod"', 'pod="shop-0"', 'name="k8s_app"'):
        assert part in found.split(",")
