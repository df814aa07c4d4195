from __future__ import annotations

from dataclasses import replace

import pytest

from collector.container import Container
from collector.discovery.registry import Containers
from collector.enrich import Sources
from collector.enrich.services import service_of
from collector.enrich.sources import looks_secret
from collector.sink import Source

LABELS = {
    "com.docker.compose.project": "shop",
    "com.docker.compose.service": "web",
    "org.example.team": "a",
    "org.example.db_password": "hunter2",
    "other": "x",
}
WEB = Container("a" * 64, "shop-web-1", image="web:1", engine="docker", labels=LABELS)


@pytest.fixture
def containers() -> Containers:
    made = Containers()
    made.update(WEB)
    return made


def test_what_discovery_knows_goes_before_what_the_message_says(containers):
    source = Sources(containers, "host1")(WEB.id, "/old-name", "old-image", "gelf")
    assert source == Source(
        WEB.id, "shop-web-1", "web:1", "host1", "gelf", "docker", {k: LABELS[k] for k in list(LABELS)[:2]}
    )


@pytest.mark.parametrize("key", [(WEB.id, ""), (WEB.id[:12], ""), ("", "shop-web-1"), ("", "/shop-web-1")])
def test_containers_are_found_by_what_drivers_send(containers, key):
    assert Sources(containers, "h")(*key, "", "fluentd").container_id == WEB.id


@pytest.mark.parametrize("key", [("b" * 64, "/web"), ("", "web"), ("", "")])
def test_unknown_containers_keep_what_the_message_says(containers, key):
    source = Sources(containers, "h")(*key, "img", "fluentd")
    assert source == Source(key[0], key[1].removeprefix("/"), "img", "h", "fluentd")


def test_an_id_is_not_taken_for_a_name(containers):
    containers.update(Container("c" * 64, "b" * 12, image="trap"))
    assert Sources(containers, "h")("b" * 12, "", "", "gelf").container_id == "b" * 12


def test_a_name_is_not_taken_for_the_beginning_of_an_id(containers):
    assert Sources(containers, "h")("", "aa", "", "gelf").container_id == ""


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ((), set()),
        (("org.example.*",), {"org.example.team"}),
        (("*",), {"org.example.team", "other"}),
        (("org.example.db_password",), set()),
    ],
)
def test_labels_by_the_allow_list_and_never_secrets(containers, patterns, names):
    source = Sources(containers, "h", patterns)(WEB.id, "", "", "gelf")
    assert set(source.labels) == names | {"com.docker.compose.project", "com.docker.compose.service"}


def test_one_object_until_something_that_is_handed_on_changes(containers):
    sources = Sources(containers, "h")
    first = sources(WEB.id, "", "", "gelf")
    assert sources(WEB.id, "", "", "gelf") is first
    containers.update(replace(WEB, state="exited"))
    assert sources(WEB.id, "", "", "gelf") is first
    containers.update(replace(WEB, name="renamed"))
    assert sources(WEB.id, "", "", "gelf").container_name == "renamed"


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("DB_PASSWORD", True),
        ("app.secret", True),
        ("api-key", True),
        ("github_token", True),
        ("registry.auth", True),
        ("pass", True),
        ("author", False),
        ("compass.heading", False),
        ("passenger", False),
        ("keyboard", False),
        ("org.opencontainers.image.authors", False),
    ],
)
def test_names_of_secrets(name, secret):
    assert looks_secret(name) is secret


def test_services():
    assert service_of(LABELS) == "web"
    assert service_of({"com.docker.swarm.service.name": "shop_web"}) == "shop_web"
    assert service_of({}) == ""
