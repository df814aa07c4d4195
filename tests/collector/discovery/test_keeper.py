"""Command lines of programs that say they keep a container; anybody may start one with any words."""

from __future__ import annotations

from collector.discovery.keeper import parse_conmon, parse_shim


def words(line: bytes) -> list[str]:
    return line.decode(errors="surrogateescape").split(" ")


def test_names_are_unicode_and_paths_are_what_they_are() -> None:
    keeper = parse_conmon(words(b"conmon -c \xfeid -n we\xffb -b /b/\xff -l k8s-file:/l/\xff"))
    assert keeper is not None
    assert (keeper.id, keeper.name) == ("�id", "we�b")
    assert (keeper.bundle, keeper.log_path) == ("/b/\udcff", "/l/\udcff")
    shim = parse_shim(words(b"containerd-shim -namespace \xff -id a\xff"), "/")
    assert shim is not None
    assert (shim.id, shim.namespace) == ("a�", "�")
    (shim.id + shim.namespace + keeper.id + keeper.name).encode()
