from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collector.container import Container, LogSource
from collector.discovery.registry import Containers
from collector.enrich import Sources
from collector.inputs import directory_watch
from collector.inputs.own_addresses import sends_to
from collector.inputs.tails import Tails
from logdrivers.block import Block, Encoding, Stream
from logdrivers.codecs import json_file as codec
from logdrivers.driver import Info
from logdrivers.journal import Mark
from logdrivers.local import LocalDriver

NS = 1_795_203_812_000_000_000


def records(name: str, first: int, last: int) -> bytes:
    return b"".join(
        b'{"log":"%s %d\\n","stream":"stdout","time":"%s"}\n'
        % (name.encode(), number, codec.format_time(1_795_203_812_000_000_000 + number))
        for number in range(first, last)
    )


def text_of(block: Block) -> bytes:
    """What was written, whether small entries were put together as records or not."""
    if block.encoding is Encoding.JSON_FILE:
        return b"".join(record.log for record in codec.decode(block.data))
    return block.data


def lines(name: str, first: int, last: int) -> list[bytes]:
    return [b"%s %d" % (name.encode(), number) for number in range(first, last)]


def eventually(condition: Callable[[], object], what: str = "", seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not come: {what}"
        time.sleep(0.01)


@pytest.fixture
def containers() -> Containers:
    return Containers()


@pytest.fixture
def add(containers: Containers, tmp_path: Path) -> Callable[..., Container]:
    def make(name: str, **fields: Any) -> Container:
        key = (name.encode().hex() + "0" * 64)[:64]
        directory = tmp_path / key
        directory.mkdir(exist_ok=True)
        log = LogSource("json-file", str(directory / f"{key}-json.log"))
        container = Container(key, name, **{"image": "busybox", "engine": "docker", "log": log, **fields})
        containers.update(container)
        return container

    return make


@pytest.fixture
def tailing(containers: Containers, intake: Any) -> Callable[..., Any]:
    @contextlib.contextmanager
    def run(**options: Any) -> Iterator[Tails]:
        tails = Tails(containers, intake, Sources(containers, "host1"), **options)
        thread = threading.Thread(target=tails.run_forever)
        thread.start()
        try:
            yield tails
        finally:
            tails.stop()
            thread.join(120)
            assert not thread.is_alive()

    return run


def write(container: Container, data: bytes) -> None:
    with Path(container.log.path).open("ab") as file:
        file.write(data)


def test_known_and_new_containers_are_tailed(add, tailing, intake):
    web = add("web")
    write(web, records("web", 0, 100))
    with tailing() as tails:
        eventually(lambda: len(intake.messages()) == 100)
        db = add("db")
        write(db, records("db", 0, 50))
        eventually(lambda: len(intake.messages(db.id)) == 50)
        write(web, records("web", 100, 150))
        eventually(lambda: len(intake.messages(web.id)) == 150)
        assert tails.status()[web.id].counters.lines == 150
    assert intake.messages(web.id) == lines("web", 0, 150)
    assert tails.totals().lines == 200
    source = intake.blocks[0][0]
    assert (source.container_name, source.input, source.host, source.engine) == (
        "web",
        "json-file",
        "host1",
        "docker",
    )


def test_a_restart_goes_on_where_it_was(add, tailing, intake):
    web = add("web")
    for part in range(5):
        write(web, records("web", 100 * part, 100 * part + 50))
        with tailing():
            write(web, records("web", 100 * part + 50, 100 * (part + 1)))
            eventually(lambda part=part: len(intake.messages()) == 100 * (part + 1))
    assert intake.messages() == lines("web", 0, 500)


def test_removed_container_is_read_to_its_end(add, tailing, containers, intake):
    web = add("web")
    write(web, records("web", 0, 10))
    with tailing(block_bytes=4096) as tails:
        eventually(lambda: len(intake.messages()) == 10)
        write(web, records("web", 10, 5000))
        Path(web.log.path).unlink()
        Path(web.log.path).parent.rmdir()
        containers.remove(web.id, "docker")
        eventually(lambda: not tails.status())
    assert intake.messages() == lines("web", 0, 5000)
    assert tails.totals().lost_bytes == {}


def test_ended_containers_are_read_once_and_let_go(add, tailing, intake):
    web = add("web", state="exited")
    write(web, records("web", 0, 10))
    with tailing() as tails:
        eventually(lambda: len(intake.messages()) == 10 and not tails.status())
        add("web", state="running")
        write(web, records("web", 10, 20))
        eventually(lambda: len(intake.messages()) == 20)
        assert tails.status()


def test_renamed_container_has_a_new_source(add, tailing, containers, intake):
    web = add("web")
    write(web, records("web", 0, 10))
    with tailing():
        eventually(lambda: len(intake.messages()) == 10)
        containers.update(replace(web, name="www"))
        write(web, records("web", 10, 20))
        eventually(lambda: len(intake.messages()) == 20)
    assert [source.container_name for source, _ in intake.blocks] == ["web", "www"]


def test_noisy_container_does_not_starve_the_others(add, tailing, intake):
    noisy = add("noisy")
    write(noisy, records("noisy", 0, 50_000))
    quiet = [add(f"quiet{number}") for number in range(5)]
    for container in quiet:
        write(container, records(container.name, 0, 1))
    with tailing(block_bytes=1 << 16):
        eventually(lambda: len(intake.blocks) > 60)
    order = [source.container_name for source, _ in intake.blocks]
    assert {c.name for c in quiet} <= set(order[:6])


def test_store_that_is_full_is_tried_again(add, tailing, intake, caplog):
    intake.fail = 2
    web = add("web")
    write(web, records("web", 0, 10))
    with tailing() as tails:
        eventually(lambda: len(intake.messages()) == 10)
        assert tails.status()[web.id].failures == 2
    assert caplog.text.count("No space left") == 1


def test_directory_that_is_made_later(containers, tailing, intake, tmp_path):
    path = tmp_path / "later" / "c-json.log"
    containers.update(Container("c" * 64, "web", log=LogSource("json-file", str(path))))
    with tailing() as tails:
        eventually(tails.status)
        path.parent.mkdir()
        path.write_bytes(records("web", 0, 10))
        eventually(lambda: len(intake.messages()) == 10)
        eventually(lambda: tails._watch.watched(path.parent))
        with path.open("ab") as file:
            file.write(records("web", 10, 20))
        eventually(lambda: len(intake.messages()) == 20)


def test_logs_are_looked_at_where_the_host_allows_no_watch(add, tailing, intake, monkeypatch, caplog):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "no (fs.inotify.max_user_instances)")

    monkeypatch.setattr(directory_watch, "Watch", refuse)
    web, db = add("web"), add("db")
    write(web, records("web", 0, 10))
    with tailing():
        eventually(lambda: len(intake.messages(web.id)) == 10)
        write(db, records("db", 0, 5))
        eventually(lambda: len(intake.messages(db.id)) == 5)
        monkeypatch.undo()
        write(web, records("web", 10, 20))
        eventually(lambda: len(intake.messages(web.id)) == 20)
    assert caplog.text.count("max_user_instances") == 1


def test_rotation_while_tailing(add, tailing, intake):
    web = add("web")
    path = Path(web.log.path)
    with tailing(block_bytes=1 << 14) as tails:
        for number in range(60):
            write(web, records("web", 500 * number, 500 * (number + 1)))
            if number % 2:
                path.with_name(path.name + ".1").unlink(missing_ok=True)
                path.rename(path.with_name(path.name + ".1"))
                eventually(lambda number=number: tails.totals().lines > 500 * (number - 1))
        eventually(lambda: len(intake.messages()) == 30_000)
    assert intake.messages() == lines("web", 0, 30_000)


def test_logs_that_are_not_read(containers, tailing, intake, tmp_path):
    for number, (driver, options) in enumerate(
        [("none", {}), ("gelf", {"gelf-address": "udp://127.0.0.1:12201"}), ("", {})]
    ):
        log = LogSource(driver, "", str(tmp_path), options)
        containers.update(Container(str(number) * 64, f"c{number}", log=log))
    web = Container("9" * 64, "web", log=LogSource("json-file", str(tmp_path / "x-json.log")))
    (tmp_path / "x-json.log").write_bytes(records("web", 0, 1))
    containers.update(web)
    with tailing(own_addresses=["0.0.0.0:12201"], open_journal=None) as tails:
        eventually(lambda: intake.messages() == lines("web", 0, 1))
        assert list(tails.status()) == [web.id]


def test_local_files_of_our_engine_are_read_through_rotation(containers, tailing, intake, tmp_path):
    options = {"max-size": "2k", "max-file": "100"}
    info = Info("d" * 64, "/web", "", "image", (), 0, tmp_path, options)
    journal = LocalDriver().journal(info)
    web = Container(info.container_id, "web", log=LogSource("local", "", str(tmp_path), options))
    containers.update(web)
    with tailing():
        for number in range(200):
            journal.append(
                Block(b"web %d\n" % number, Encoding.LINES, Stream.STDOUT, NS, NS, 1), Mark(number, 0)
            )
        eventually(lambda: sum(block.lines for _, block in intake.blocks) == 200)
    journal.close()
    assert b"".join(text_of(block) for _, block in intake.blocks).splitlines() == lines("web", 0, 200)


def test_run_is_a_task_that_can_be_cancelled(add, containers, intake):
    write(add("web"), records("web", 0, 10))
    tails = Tails(containers, intake, Sources(containers, "host1"))

    async def scenario() -> None:
        task = asyncio.create_task(tails.run())
        while len(intake.messages()) < 10:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert not containers._callbacks


@pytest.mark.parametrize(
    ("driver", "options", "addresses", "expected"),
    [
        ("gelf", {"gelf-address": "udp://127.0.0.1:12201"}, ["127.0.0.1:12201"], True),
        ("gelf", {"gelf-address": "udp://localhost:12201"}, ["127.0.0.1:12201"], True),
        ("gelf", {"gelf-address": "tcp://127.0.0.2:12201"}, ["0.0.0.0:12201"], True),
        ("gelf", {"gelf-address": "udp://[::1]:12201"}, ["[::]:12201"], True),
        ("gelf", {"gelf-address": "udp://192.0.2.9:12201"}, ["0.0.0.0:12201"], False),
        ("gelf", {"gelf-address": "udp://127.0.0.1:12202"}, ["127.0.0.1:12201"], False),
        ("gelf", {"gelf-address": "udp://graylog:12201"}, ["127.0.0.1:12201"], False),
        ("gelf", {"gelf-address": "https://127.0.0.1:12202/gelf"}, ["127.0.0.1:12202"], True),
        ("gelf", {"gelf-address": "http://127.0.0.1"}, ["127.0.0.1:80"], True),
        ("gelf", {"gelf-address": "http://127.0.0.1"}, ["127.0.0.1:12201"], False),
        ("fluentd", {}, ["127.0.0.1:24224"], True),
        ("fluentd", {"fluentd-address": "localhost"}, ["127.0.0.1:24224"], True),
        ("fluentd", {"fluentd-address": "127.0.0.1:9999"}, ["127.0.0.1:24224"], False),
        ("fluentd", {"fluentd-address": "unix:///run/f.sock"}, ["/run/f.sock"], True),
        ("fluentd", {"fluentd-address": "tcp://127.0.0.1:x"}, ["127.0.0.1:24224"], True),
        ("syslog", {}, ["127.0.0.1:514"], False),
        ("json-file", {}, ["127.0.0.1:24224"], False),
    ],
)
def test_own_addresses(driver, options, addresses, expected):
    assert sends_to(LogSource(driver, options=options), addresses) is expected
