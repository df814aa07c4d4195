"""docker-py against the engine."""

from __future__ import annotations

import io
import os
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import docker
import pytest
from engine_process import IMAGE, EngineProcess

from runtime.stats import system_cpu_ns

MS = 1_000_000


def test_run_create_list_inspect(client: docker.DockerClient) -> None:
    assert client.ping()
    assert client.containers.run(IMAGE, "echo hello", remove=True) == b"hello\n"
    container = client.containers.run(IMAGE, "sleep 1000", detach=True, labels={"a": "b"}, mem_limit="64m")
    container.reload()
    assert container.status == "running"
    assert container.attrs["HostConfig"]["Memory"] == 64 << 20
    assert [c.id for c in client.containers.list(filters={"label": "a=b"})] == [container.id]
    assert client.containers.list(filters={"label": "a=c"}) == []
    container.kill()
    assert container.wait()["StatusCode"] == 137
    container.remove()
    with pytest.raises(docker.errors.NotFound):
        client.containers.get(container.id)


def test_a_failing_command_raises_with_its_output(client: docker.DockerClient) -> None:
    with pytest.raises(docker.errors.ContainerError) as caught:
        client.containers.run(IMAGE, "sh -c 'echo bad >&2; exit 2'")
    assert caught.value.exit_status == 2
    assert caught.value.stderr == b"bad\n"


def test_followed_logs_come_line_by_line(client: docker.DockerClient) -> None:
    container = client.containers.run(IMAGE, "seq 50", detach=True)
    assert list(container.logs(stream=True)) == [b"%d\n" % n for n in range(1, 51)]


def test_exec_and_attach(client: docker.DockerClient) -> None:
    container = client.containers.run(IMAGE, "cat", detach=True, stdin_open=True)
    code, output = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 3"], demux=True)
    assert (code, output) == (3, (b"out\n", b"err\n"))
    sock = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    sock._sock.sendall(b"through the socket\n")
    header = sock._sock.recv(8)
    assert header[0] == 1
    assert sock._sock.recv(int.from_bytes(header[4:], "big")) == b"through the socket\n"
    sock._sock.close()
    sock.close()
    container.kill()


def own_cpu_ns(container: Any) -> int:
    """What the scheduler says that a container's one process has used."""
    container.reload()
    return int(Path(f"/proc/{container.attrs['State']['Pid']}/schedstat").read_text().split()[0])


def all_cpu_ns() -> int:
    """The time of all CPUs together, idle or not."""
    return system_cpu_ns(Path("/proc/stat").read_text())


def test_stats_have_the_fields_that_clients_read(client: docker.DockerClient) -> None:
    container = client.containers.run(IMAGE, "sh -c 'while true; do :; done'", detach=True, mem_limit="100m")
    started, host_started = own_cpu_ns(container), all_cpu_ns()
    stats: dict[str, Any] = container.stats(stream=False)
    ended, host_ended = own_cpu_ns(container), all_cpu_ns()
    cpu, before = stats["cpu_stats"], stats["precpu_stats"]
    # What is between two readings of the engine's is between ours around them, however busy the machine is.
    assert (
        0 < cpu["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"] <= ended - started + 10 * MS
    )
    assert 0 < cpu["system_cpu_usage"] - before["system_cpu_usage"] <= host_ended - host_started + 100 * MS
    assert 0 < cpu["online_cpus"] <= (os.cpu_count() or 1)
    # And what was between two readings of ours is between the engine's around them.
    started, host_started = own_cpu_ns(container), all_cpu_ns()
    while own_cpu_ns(container) < started + 2000 * MS:
        time.sleep(0.1)
    used, host_used = own_cpu_ns(container) - started, all_cpu_ns() - host_started
    later = container.stats(stream=False)["cpu_stats"]
    assert later["cpu_usage"]["total_usage"] - cpu["cpu_usage"]["total_usage"] >= used - 10 * MS
    assert later["system_cpu_usage"] - cpu["system_cpu_usage"] >= host_used - 100 * MS
    assert stats["memory_stats"]["limit"] == 100 << 20
    assert 0 < stats["memory_stats"]["usage"] < 100 << 20
    assert stats["pids_stats"]["current"] == 1
    assert "eth0" in stats["networks"]
    container.kill()
    stopped: dict[str, Any] = container.stats(stream=False)
    assert stopped["memory_stats"] == {}


def test_events_stream(client: docker.DockerClient) -> None:
    name = f"c-{uuid.uuid4().hex[:10]}"
    events = client.events(decode=True, filters={"type": "container", "container": name})
    seen: list[str] = []

    def read() -> None:
        for event in events:
            seen.append(event["Action"])
            if event["Action"] == "destroy":
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    client.containers.run(IMAGE, "true", remove=True, name=name)
    reader.join(100)
    assert not reader.is_alive()
    events.close()
    assert [action for action in seen if action != "attach"] == ["create", "start", "die", "destroy"]


def test_images(client: docker.DockerClient, engine: EngineProcess) -> None:
    image = client.images.get(IMAGE)
    assert image.tags == [IMAGE]
    assert image.tag("other/name", "v2")
    assert "other/name:v2" in client.images.get(image.id).tags
    client.images.remove("other/name:v2")
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("other/name:v2")
    with pytest.raises(docker.errors.APIError) as caught:
        client.images.load(io.BytesIO(b"this is no archive"))
    assert caught.value.status_code == 400
