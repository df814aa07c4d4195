"""One page for all who ask at the same time, the same text whichever way it is had, and no long hold of the loop."""

from __future__ import annotations

import asyncio
import gzip
import threading

import pytest

from collector.container import Container
from collector.discovery.registry import Containers
from collector.host.collection import HostGroups
from collector.sampler import Sampler
from exporters.prometheus.exposition import Exposition
from exporters.prometheus.node_page import NodePage
from exporters.prometheus.page import Only, Page, SharedPage
from exporters.prometheus.plan import Plan
from exporters.prometheus.self_metrics import SelfMetrics
from exporters.prometheus.series import Entry


class Counted:
    """Pages with a number, each made when it is let go."""

    def __init__(self) -> None:
        self.made = 0
        self.free = threading.Event()
        self.free.set()
        self.error: Exception | None = None

    def plain(self) -> bytes:
        self.made += 1
        number = self.made
        self.free.wait(30)
        if self.error is not None:
            raise self.error
        return b"%d" % number

    gzip = plain


def shared(max_age: float) -> tuple[Counted, SharedPage]:
    page = Counted()
    return page, SharedPage(page, max_age)  # type: ignore[arg-type]


def test_those_who_ask_while_it_is_made_get_the_same() -> None:
    async def ask() -> list[bytes]:
        page.free.clear()
        waiting = [asyncio.create_task(one.get(True)) for _ in range(5)]
        while not page.made:
            await asyncio.sleep(0.001)
        waiting[0].cancel()  # the first goes away
        page.free.set()
        return await asyncio.gather(*waiting[1:])

    page, one = shared(0)
    assert asyncio.run(ask()) == [b"1"] * 4
    assert page.made == 1


@pytest.mark.parametrize(("max_age", "pages"), [(3600, [b"1", b"1"]), (0, [b"1", b"2"])])
def test_a_page_is_had_again_as_long_as_it_is_new(max_age: float, pages: list[bytes]) -> None:
    async def ask() -> list[bytes]:
        return [await one.get(True), await one.get(True)]

    _, one = shared(max_age)
    assert asyncio.run(ask()) == pages


def test_an_old_page_is_let_go() -> None:
    async def ask() -> None:
        await one.get(False)
        while one._made:
            await asyncio.sleep(0.001)

    _, one = shared(0.02)
    asyncio.run(asyncio.wait_for(ask(), 30))


def test_a_page_that_cannot_be_made_is_tried_again() -> None:
    async def ask() -> bytes:
        page.error = OSError("no")
        with pytest.raises(OSError, match="no"):
            await one.get(True)
        page.error = None
        while one._made:
            await asyncio.sleep(0.001)
        return await one.get(True)

    page, one = shared(3600)
    assert asyncio.run(asyncio.wait_for(ask(), 30)) == b"2"


def test_compressed_or_not_it_is_the_same_page() -> None:
    containers = Containers()
    for number in range(300):  # more than a block of lines of each family, more than a piece to compress
        identity = f"{number:064x}"
        containers.update(
            Container(identity, f"web-ü-{number}", state="exited", finished_ns=1, exit_code=number)
        )
    sampler = Sampler(containers)
    sampler.sample_all(4 * 10**18)  # so new that no page makes another
    page = Page(
        Exposition(containers, sampler),
        sampler,
        None,
        node=NodePage(HostGroups(groups=["uname"])),
    )
    plain = without_times(page.plain())
    assert without_times(gzip.decompress(page.gzip())) == plain
    assert without_times(gzip.decompress(page.gzip())) == plain  # values that were kept
    assert plain.count(b"\ncontainer_exit_code{") == plain.count(b"container_exit_code{") == 300
    assert plain.count(b"# TYPE container_exit_code ") == 1
    assert b"\n\n" not in plain
    sampler.close()


def without_times(page: bytes) -> bytes:
    lines = page.split(b"\n")
    return b"\n".join(line for line in lines if b"_duration_seconds" not in line and b"last_seen" not in line)


def test_values_that_change_back_and_forth_are_written_as_they_are() -> None:
    entry = Entry()
    container = Container("ab" * 32, "web", state="exited", exit_code=0)

    def line() -> str:
        parts: list[bytes] = []
        plan.fill([], [], parts.append)
        return b"".join(parts).decode()

    entry.update(container, lambda _: 'id="x"', None, 5, True, str, {})
    plan = Plan()
    plan.put("x", entry)
    for seen in (5, 6, 6, 5, 2**60, 0.25, 0, float("nan"), float("nan")):
        entry.values[0] = seen
        assert f'container_last_seen{{id="x"}} {seen}\n' in line()


def test_our_own_metrics_are_at_the_end_of_a_whole_page_only() -> None:
    containers = Containers()
    sampler = Sampler(containers)
    page = Page(Exposition(containers, sampler), sampler, SelfMetrics())
    assert b"process_cpu_seconds_total" in page.plain()
    assert b"process_cpu_seconds_total" not in page.plain(Only(ids=frozenset({"/"})))
    assert b"process_cpu_seconds_total" not in page.plain(Only(frozenset({"container_last_seen"})))
    sampler.close()


def test_containers_that_come_and_go_leave_a_plan_like_a_new_one() -> None:
    def page(plan: Plan) -> list[bytes]:
        parts: list[bytes] = []
        plan.fill([], [], parts.append)
        return sorted(b"".join(parts).splitlines())

    def entry(number: int) -> Entry:
        made = Entry()
        container = Container(f"{number:064x}", f"c{number}", state="exited", exit_code=number)
        made.update(container, lambda _: f'id="{number}"', None, 5, True, str, {})
        return made

    kept = Plan()
    entries = {str(number): entry(number) for number in range(200)}
    for key, one in entries.items():
        kept.put(key, one)
    page(kept)
    for number in (0, 63, 64, 199, *range(128, 192)):
        kept.remove(str(number))
        del entries[str(number)]
    kept.remove("never there")
    page(kept)
    for number in (300, 5, 301):  # the second is another container by now
        entries[str(number)] = entry(number)
        kept.put(str(number), entries[str(number)])
    new = Plan()
    for key, one in entries.items():
        new.put(key, one)
    assert page(kept) == page(new)
    assert kept.series == new.series == sum(len(one.rows) for one in entries.values())
    for key in entries:
        kept.remove(key)
    assert page(kept) == []
