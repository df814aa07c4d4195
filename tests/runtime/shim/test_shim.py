"""A container under a shim: start, output, exit, signals, memory, sessions, terminals; under the real runc."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest

from logdrivers.block import Stream
from runtime.shim.client import ShimError
from runtime.shim.exit_status import ExitStatus
from runtime.shim.shims import StartError


async def read_all(session) -> dict[Stream, bytes]:
    """What an attached client gets until the end."""
    output = {Stream.STDOUT: b"", Stream.STDERR: b""}
    async for stream, data in session:
        output[stream] += data
    return output


def shell(script: str, **more: object) -> dict[str, object]:
    """An OCI process."""
    return {
        "args": ["/bin/sh", "-c", script],
        "env": ["PATH=/bin"],
        "cwd": "/",
        "user": {"uid": 0, "gid": 0},
        **more,
    }


def test_output_and_exit_code_are_recorded(bundles):
    spec = bundles.spec("echo hello; echo oops >&2; printf tail; exit 3")

    async def scenario(shims):
        handle = await shims.run(spec)
        assert handle.pid > 0
        return await handle.wait()

    status = bundles.play(scenario)
    assert (status.code, status.signal, status.oom_killed) == (3, 0, False)
    assert ExitStatus.read(spec.run_dir) == status
    assert bundles.records(spec) == ["hello\n", "tail"]
    assert bundles.records(spec, "stderr") == ["oops\n"]
    assert not (bundles.runtime_root / spec.container_id).exists()


def test_a_container_that_ends_at_once_loses_nothing(bundles):
    specs = [bundles.spec(["/bin/seq", "1", "500"]) for _ in range(5)]

    async def scenario(shims):
        handles = await asyncio.gather(*(shims.run(spec) for spec in specs))
        return await asyncio.gather(*(handle.wait() for handle in handles))

    assert [status.code for status in bundles.play(scenario)] == [0] * 5
    for spec in specs:
        assert bundles.records(spec) == [f"{n}\n" for n in range(1, 501)]


def test_a_command_that_is_not_there_is_refused_in_the_runtimes_words(bundles):
    spec = bundles.spec(["/nope"])

    async def scenario(shims):
        with pytest.raises(StartError, match='exec: "/nope"'):
            await shims.run(spec)
        # The refused start leaves nothing in the way of another.
        assert (await (await shims.run(bundles.spec("exit 4"))).wait()).code == 4

    bundles.play(scenario)
    assert not (bundles.runtime_root / spec.container_id).exists()


def test_an_unknown_log_driver_is_a_start_error(bundles):
    async def scenario(shims):
        with pytest.raises(StartError, match="no log driver named 'nope'"):
            await shims.run(bundles.spec("exit 0", driver="nope"))

    bundles.play(scenario)


def test_a_runtime_that_is_not_there_is_a_start_error(bundles):
    async def scenario(shims):
        with pytest.raises(StartError, match="no-such-runc"):
            await shims.run(bundles.spec("exit 0", runtime="no-such-runc"))

    bundles.play(scenario)


def test_signals_and_pause(bundles):
    spec = bundles.spec("trap 'echo got; exit 9' USR1; echo up; while :; do sleep 0.05; done")

    async def scenario(shims):
        handle = await shims.run(spec)
        while (await handle.counters())["lines"] < 1:
            await asyncio.sleep(0.01)
        await handle.pause()
        await handle.signal(signal.SIGUSR1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(handle.wait(), 0.3)
        await handle.resume()
        status = await handle.wait()
        with pytest.raises(ProcessLookupError):
            await handle.signal(signal.SIGKILL)
        return status

    assert bundles.play(scenario).code == 9
    assert bundles.records(spec) == ["up\n", "got\n"]


def test_a_signal_that_kills_is_128_plus_its_number(bundles):
    async def scenario(shims):
        handle = await shims.run(bundles.spec(["/bin/sleep", "1000"]))
        await handle.signal(signal.SIGKILL, all=True)
        return await handle.wait()

    status = bundles.play(scenario)
    assert (status.code, status.signal) == (137, 9)


def test_an_out_of_memory_kill_is_told(bundles):
    spec = bundles.spec("exec awk 'BEGIN { s = \"x\"; while (1) s = s s }'", memory=16 << 20)

    async def scenario(shims):
        return await (await shims.run(spec)).wait()

    status = bundles.play(scenario)
    assert (status.code, status.oom_killed) == (137, True)


def test_the_container_opens_its_standard_output_again(bundles):
    spec = bundles.spec(
        "echo through > /proc/self/fd/1; echo /dev/stderr > /proc/self/fd/2",
        oci={"user": {"uid": 1234, "gid": 1234}},
        uid=1234,
        gid=1234,
    )

    async def scenario(shims):
        return await (await shims.run(spec)).wait()

    assert bundles.play(scenario).code == 0
    assert bundles.records(spec) == ["through\n"]
    assert bundles.records(spec, "stderr") == ["/dev/stderr\n"]


def test_output_goes_on_after_every_process_closed_it_for_a_while(bundles):
    spec = bundles.spec(
        "echo a; exec 3>/proc/self/fd/1; exec >/dev/null; sleep 0.2; echo b >&3; exec 3>&-; exit 0"
    )

    async def scenario(shims):
        return await (await shims.run(spec)).wait()

    bundles.play(scenario)
    assert bundles.records(spec) == ["a\n", "b\n"]


def test_the_next_start_goes_on_in_the_same_journal(bundles):
    spec = bundles.spec("echo life; printf open")

    async def scenario(shims):
        for _ in range(3):
            await (await shims.run(spec)).wait()

    bundles.play(scenario)
    assert bundles.records(spec) == ["life\n", "open"] * 3


def test_running_twice_is_refused(bundles):
    spec = bundles.spec(["/bin/sleep", "1000"])

    async def scenario(shims):
        await shims.run(spec)
        with pytest.raises(ValueError, match="running already"):
            await shims.run(spec)

    bundles.play(scenario)


def test_an_attached_client_gets_output_from_the_first_byte(bundles):
    spec = bundles.spec("seq 1 20000; echo err >&2; exit 5", await_attach=True)

    async def scenario(shims):
        handle = await shims.run(spec)
        session = await handle.attach(stdin=False)
        output = await read_all(session)
        await session.close()
        return output, session.end

    output, end = bundles.play(scenario)
    assert output[Stream.STDOUT] == b"".join(b"%d\n" % n for n in range(1, 20001))
    assert output[Stream.STDERR] == b"err\n"
    assert end["exit_code"] == 5


def test_stdin_goes_to_the_container_and_ends_with_the_client(bundles):
    spec = bundles.spec(["/bin/cat"], open_stdin=True, stdin_once=True)
    data = b"".join(b"line %d\n" % n for n in range(50_000))

    async def scenario(shims):
        handle = await shims.run(spec)
        session = await handle.attach()
        reading = asyncio.create_task(read_all(session))
        await session.write_stdin(data)
        session.end_stdin()
        status = await handle.wait()
        return status, await reading

    status, output = bundles.play(scenario)
    assert status.code == 0
    assert output[Stream.STDOUT] == data
    assert "".join(bundles.records(spec)).encode() == data


def test_stdin_without_once_stays_open_until_it_is_closed(bundles):
    spec = bundles.spec(["/bin/cat"], open_stdin=True)

    async def scenario(shims):
        handle = await shims.run(spec)
        for text in (b"one\n", b"two\n"):
            session = await handle.attach()
            await session.write_stdin(text)
            session.end_stdin()
            async for _, data in session:
                assert data == text
                break
            await session.close()
        await handle.close_stdin()
        return await handle.wait()

    assert bundles.play(scenario).code == 0
    assert bundles.records(spec) == ["one\n", "two\n"]


def test_a_client_that_leaves_is_forgotten(bundles):
    spec = bundles.spec("cat; sleep 1000", open_stdin=True)

    async def scenario(shims):
        handle = await shims.run(spec)
        staying, leaving = await handle.attach(), await handle.attach()
        assert (await handle.counters())["attached"] == 2
        await leaving.close()
        while (await handle.counters())["attached"] > 1:
            await asyncio.sleep(0.01)
        await staying.write_stdin(b"still here\n")
        async for stream, data in staying:
            assert (stream, data) == (Stream.STDOUT, b"still here\n")
            break
        await staying.close()

    bundles.play(scenario)


def test_a_slow_client_holds_the_container_back_and_gets_everything(bundles):
    spec = bundles.spec(["/bin/seq", "1", "600000"], await_attach=True)

    async def scenario(shims):
        handle = await shims.run(spec)
        session = await handle.attach(stdin=False)
        await asyncio.sleep(0.5)
        assert handle.running
        return await read_all(session)

    output = bundles.play(scenario)[Stream.STDOUT]
    assert output == b"".join(b"%d\n" % n for n in range(1, 600_001))


def test_a_terminal(bundles):
    spec = bundles.spec("stty size; read line; echo got $line; exit 6", tty=True)

    async def scenario(shims):
        handle = await shims.run(spec)
        session = await handle.attach()
        await handle.resize(41, 123)
        await session.write_stdin(b"typed\n")
        output = await read_all(session)
        return output[Stream.STDOUT], await handle.wait()

    output, status = bundles.play(scenario)
    assert status.code == 6
    assert b"got typed\r\n" in output
    assert bundles.records(spec)[-1] == "got typed\r\n"


def test_a_terminal_takes_a_new_size(bundles):
    spec = bundles.spec("read go; stty size", tty=True)

    async def scenario(shims):
        handle = await shims.run(spec)
        await handle.resize(41, 123)
        session = await handle.attach()
        await session.write_stdin(b"\n")
        await handle.wait()
        await session.close()

    bundles.play(scenario)
    assert "41 123\r\n" in bundles.records(spec)


def test_exec_runs_a_process_beside_and_keeps_its_output_out_of_the_log(bundles):
    spec = bundles.spec("echo main; sleep 1000")

    async def scenario(shims):
        handle = await shims.run(spec)
        session = await handle.exec(shell("echo out; echo err >&2; exit 7"))
        output = await read_all(session)
        assert output == {Stream.STDOUT: b"out\n", Stream.STDERR: b"err\n"}
        assert session.exit_code == 7
        with pytest.raises(ShimError, match="/nope"):
            await handle.exec({**shell(""), "args": ["/nope"]})
        session = await handle.exec(shell("kill -9 $$"))
        await read_all(session)
        assert session.exit_code == 137

    bundles.play(scenario)
    assert bundles.records(spec) == ["main\n"]


def test_exec_with_stdin_and_many_at_once(bundles):
    data = os.urandom(300_000)

    async def one(handle, number: int) -> int | None:
        session = await handle.exec(shell(f"cat; exit {number}"), stdin=True)
        reading = asyncio.create_task(read_all(session))
        await session.write_stdin(data)
        session.end_stdin()
        assert (await reading)[Stream.STDOUT] == data
        return session.exit_code

    async def scenario(shims):
        handle = await shims.run(bundles.spec(["/bin/sleep", "1000"]))
        return await asyncio.gather(*(one(handle, n) for n in range(6)))

    assert bundles.play(scenario) == [0, 1, 2, 3, 4, 5]


def test_exec_with_a_terminal(bundles):
    async def scenario(shims):
        handle = await shims.run(bundles.spec(["/bin/sleep", "1000"]))
        session = await handle.exec(shell("read go; stty size; exit 8", terminal=True), session="s1")
        await handle.exec_resize("s1", 33, 99)
        await session.write_stdin(b"\n")
        output = await read_all(session)
        return output[Stream.STDOUT], session.exit_code

    output, code = bundles.play(scenario)
    assert b"33 99\r\n" in output
    assert code == 8


def test_requests_that_make_no_sense_are_refused_by_name(bundles):
    async def scenario(shims):
        handle = await shims.run(bundles.spec(["/bin/sleep", "1000"]))
        with pytest.raises(ShimError, match="no terminal"):
            await handle.resize(1, 1)
        with pytest.raises(ShimError, match="unknown op 'dance'"):
            await handle._ask({"op": "dance"})

    bundles.play(scenario)


def test_what_a_shim_counts(bundles):
    spec = bundles.spec("echo 12345; echo 1 >&2; sleep 1000")

    async def scenario(shims):
        handle = await shims.run(spec)
        while (counters := await handle.counters())["lines"] < 2:
            await asyncio.sleep(0.01)
        return counters

    counters = bundles.play(scenario)
    assert (counters["lines"], counters["bytes"], counters["behind_bytes"]) == (2, 8, 0)


def test_a_long_line_is_in_the_log_as_docker_writes_it(bundles):
    spec = bundles.spec(
        "head -c 40000 /dev/zero | tr '\\0' x; echo; head -c 16384 /dev/zero | tr '\\0' y; echo"
    )

    async def scenario(shims):
        await (await shims.run(spec)).wait()

    bundles.play(scenario)
    assert [(len(text), text[:1], text[-1:]) for text in bundles.records(spec)] == [
        (16384, "x", "x"),
        (16384, "x", "x"),
        (40000 - 32768 + 1, "x", "\n"),
        (16384, "y", "y"),
        (1, "\n", "\n"),
    ]


def test_the_run_directory_may_have_a_long_path(bundles):
    deep = bundles.directory / "run" / ("d" * 100)
    spec = bundles.spec("exit 0")
    spec = type(spec).from_json({**spec.to_json(), "run_dir": str(deep)})

    async def scenario(shims):
        deep.mkdir(parents=True)
        handle = await shims.run(spec)
        assert (await handle.wait()).code == 0

    bundles.play(scenario)
    assert json.loads((deep / "exit.json").read_text())["code"] == 0
