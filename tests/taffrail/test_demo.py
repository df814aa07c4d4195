import io
import tarfile
from pathlib import Path

import pytest

from taffrail.__main__ import main
from taffrail.demo import busybox_rootfs, demo_containers
from taffrail.wiring import Endpoints


def test_the_rootfs_is_a_static_busybox_with_its_applets() -> None:
    with tarfile.open(fileobj=io.BytesIO(busybox_rootfs())) as tar:
        assert tar.getmember("bin/busybox").mode == 0o755
        assert tar.getmember("bin/sh").linkname == "busybox"
        assert tar.getmember("tmp").mode == 0o1777


def test_each_driver_has_a_container_and_an_input_that_is_off_has_none() -> None:
    everywhere = Endpoints(http="h:1", gelf="127.0.0.1:2", forward="127.0.0.1:3")
    assert [c.driver for c in demo_containers(everywhere)] == ["json-file", "gelf", "fluentd"]
    assert [c.driver for c in demo_containers(Endpoints(http="h:1"))] == ["json-file"]


@pytest.mark.parametrize("words", [[], ["--remove"]])
def test_without_an_engine_it_says_where_one_was_expected(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--set", f"paths.run={tmp_path}", "demo", *words]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"taffrail demo: no engine answers at {tmp_path}/engine.sock: start one with 'taffrail up'"
    )
