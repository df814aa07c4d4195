"""Programs that watch containers, each started in a cgroup of its own so that all it costs can be counted.

docker stats (dockerd does the work), our agent, netdata with its cgroups plugin, cAdvisor and Node Exporter.
What is measured of them and how it is shown is ``bench.peers``; what they say is ``bench.beside_cadvisor``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.agent import agent_process
from bench.engines import IMAGE, TICKS, Engine
from collector.cgroup.layout import Layout
from collector.roots import Roots
from taffrail.demo import busybox_rootfs

__all__ = [
    "Account",
    "Docker",
    "Watcher",
    "cadvisor",
    "docker_stats",
    "netdata",
    "node_exporter",
    "taffrail",
]

#: Mounts something empty over every cgroup but ours, then runs the command: what others do on this host is
#: neither found nor paid for. First argument is the name of our cgroup.
_COVERED = """
own=$1; shift
for directory in /sys/fs/cgroup/*/*/ /sys/fs/cgroup/*/; do
  case "$directory" in */"$own"/) continue;; esac
  test -e "$directory/cgroup.procs" || continue
  case "$(stat -f -c %T "$(dirname "$directory")")" in
    cgroup*) mount -t tmpfs -o size=4k none "$directory";;
  esac
done
exec "$@"
"""


class Account:
    """A cgroup below ours in which a program runs, and what its processes used."""

    def __init__(self, parent: str, name: str) -> None:
        layout = Layout.read(Roots())
        path = f"/{parent}/{name}"
        directory = layout.directory("cpuacct", path) or layout.directory("", path)
        if directory is None:
            raise RuntimeError("no cgroup hierarchy that accounts CPU time is mounted")
        self.directory = directory
        directory.mkdir(parents=True)

    def command(self, words: Sequence[str], covered: str = "") -> list[str]:
        """The command so that it runs in here, with ``covered`` seeing only that cgroup of the host's."""
        if covered:
            words = ["unshare", "-m", "sh", "-c", _COVERED, "sh", covered, *words]
        enter = f'echo $$ > {shlex.quote(str(self.directory / "cgroup.procs"))}; exec "$@"'
        return ["sh", "-c", enter, "sh", *words]

    def seconds(self) -> float:
        """CPU time of everything that ever ran in here, to the nanosecond."""
        with contextlib.suppress(FileNotFoundError):
            return int((self.directory / "cpuacct.usage").read_text()) / 1e9
        found = re.search(r"usage_usec (\d+)", (self.directory / "cpu.stat").read_text())
        return int(found[1]) / 1e6 if found else 0.0

    def pids(self) -> list[int]:
        """Processes in here."""
        return [int(pid) for pid in (self.directory / "cgroup.procs").read_text().split()]

    def process_seconds(self) -> float:
        """User and system time of the processes that are in here now, and of their children that ended."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += sum(map(int, fields[11:15]))
        return total / TICKS

    def megabytes(self) -> float:
        """Resident memory of all of them; pages they share are counted for each."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
                total += int(found[1]) if found else 0
        return total / 1000

    def close(self) -> None:
        """Remove the cgroup once its processes are gone."""
        for _ in range(500):
            with contextlib.suppress(OSError):
                self.directory.rmdir()
                return
            time.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Watcher:
    """One that runs."""

    name: str
    account: Account
    seen: Callable[[], int]  #: how many containers it shows
    scrape: Callable[[], bytes] | None = None  #: its page for Prometheus
    asks: bool = False  #: has dockerd work for every sample


class Docker:
    """A private dockerd with a bridge of its own, whose containers are below our cgroup."""

    def __init__(self, root: Path, parent: str) -> None:
        self.root = root
        self.parent = parent
        self.account = Account(parent, "dockerd")
        self._bridge = f"pb{uuid.uuid4().hex[:8]}"

    def __enter__(self) -> Docker:
        for words in (f"add {self._bridge} type bridge", f"set {self._bridge} up"):
            subprocess.run(["ip", "link", *words.split()], check=True)
        subnet = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 16 * 16}.1/20"
        subprocess.run(["ip", "addr", "add", subnet, "dev", self._bridge], check=True)
        command = ["dockerd", "--data-root", f"{self.root}/d", "--exec-root", f"{self.root}/e"]
        command += ["-p", f"{self.root}/pid", "-H", f"unix://{self.root}/docker.sock", "--iptables=false"]
        command += ["-b", self._bridge, "--ip-forward=false", "--ip-masq=false", "--userland-proxy=false"]
        command += ["--cgroup-parent", f"/{self.parent}/containers"]
        self.engine = Engine(
            "dockerd", self.account.command(command), self.root / "docker.sock", self.root
        ).__enter__()
        self.engine.docker("import", "-", IMAGE, stdin=busybox_rootfs())
        return self

    def __exit__(self, *_: object) -> None:
        names = self.engine.docker("ps", "-aq").split()
        if names:
            self.engine.docker("rm", "-f", *names)
        self.engine.__exit__()
        self.account.close()
        subprocess.run(["ip", "link", "del", self._bridge], check=False)

    @property
    def socket(self) -> Path:
        """Its API."""
        return self.engine.socket


@contextlib.contextmanager
def _running(account: Account, command: Sequence[str], log: Path, **env: str) -> Iterator[None]:
    """A command in its account until the block ends; SIGKILL for those who pay no heed to SIGTERM."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={**os.environ, **env}
        )
    try:
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()
        for pid in account.pids():  # plugins of a program that had to be killed
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        account.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _fetch(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        page: bytes = answer.read()
        return page


def _seen(url: str, pattern: bytes) -> Callable[[], int]:
    def count() -> int:
        with contextlib.suppress(OSError):
            return len(re.findall(pattern, _fetch(url), re.M))
        return -1

    return count


@contextlib.contextmanager
def docker_stats(docker: Docker) -> Iterator[Watcher]:
    """The command, which has dockerd read the counters; its account is the command's alone."""
    account = Account(docker.parent, "docker-stats")
    shown = docker.root / "stats.out"
    words = ["docker", "-H", f"unix://{docker.socket}", "stats", "--format", "{{.Name}}"]
    with _running(account, account.command(words), shown):
        yield Watcher(
            "docker stats",
            account,
            lambda: len(set(re.findall(rb"peer-\d+", shown.read_bytes()[-20_000:]))),
            asks=True,
        )


@contextlib.contextmanager
def taffrail(docker: Docker, *settings: str) -> Iterator[Watcher]:
    """Our agent, which follows that dockerd and nothing else."""
    account = Account(docker.parent, "taffrail")
    root = docker.root / uuid.uuid4().hex[:6]
    root.mkdir()
    values = (f"paths.run={root}/r", f"paths.state={root}/s", f"collector.engines={docker.socket}",
              "collector.cgroups=false", "http.address=127.0.0.1:0", "inputs.gelf=", "inputs.forward=",
              *settings)  # fmt: skip
    command = [sys.executable, "-P", "-m", "taffrail"]
    command += [part for value in values for part in ("--set", value)]
    try:
        with agent_process(account.command(command), root) as agent:
            page = f"{agent.url}/metrics"
            seen = _seen(f"{page}?name=container_memory_usage_bytes", rb'name="')
            yield Watcher("taffrail", account, seen, lambda: _fetch(page))
    finally:
        account.close()


_NETDATA = """
[global]
    run as user = root
[directories]
    config = {root}/config
    cache = {root}/cache
    lib = {root}/lib
    log = {root}/log
[web]
    bind to = 127.0.0.1:{port}
[registry]
    enabled = no
[cloud]
    enabled = no
[health]
    enabled = no
[statsd]
    enabled = no
[plugins]
    enable running new plugins = no
    netdata monitoring = no
    timex = no
    idlejitter = no
    tc = no
    diskspace = no
    checks = no
    apps = no
    charts.d = no
    python.d = no
    go.d = no
    node.d = no
    perf = no
    slabinfo = no
    nfacct = no
    cups = no
    ioping = no
    fping = no
    proc = yes
    cgroups = yes
[plugin:cgroups]
    use unified cgroups = {unified}
    check for new cgroups every = 5
[plugin:proc]
{others}
"""
#: What netdata's proc plugin reads beside the interfaces, whose charts are the containers' network.
_HOST_PARTS = """
/proc/stat /proc/uptime /proc/loadavg /proc/sys/kernel/random/entropy_avail /proc/pressure
/proc/interrupts /proc/softirqs /proc/vmstat /proc/meminfo /sys/kernel/mm/ksm /sys/block/zram
/sys/devices/system/edac/mc /sys/devices/system/node /proc/net/wireless /proc/net/sockstat
/proc/net/sockstat6 /proc/net/netstat /proc/net/snmp /proc/net/snmp6 /proc/net/sctp/snmp
/proc/net/softnet_stat /proc/net/ip_vs/stats /sys/class/infiniband /proc/net/stat/conntrack
/proc/net/stat/synproxy /proc/diskstats /proc/mdstat /proc/net/rpc/nfsd /proc/net/rpc/nfs
/proc/spl/kstat/zfs/arcstats /proc/spl/kstat/zfs/pool/state /sys/fs/btrfs ipc /sys/class/power_supply
/proc/pagetypeinfo
"""


@contextlib.contextmanager
def netdata(docker: Docker) -> Iterator[Watcher]:
    """netdata with the cgroups plugin and the interfaces' counters, everything else of it off."""
    account = Account(docker.parent, "netdata")
    root, port = docker.root / uuid.uuid4().hex[:6], _free_port()
    for part in ("config", "cache", "lib/registry", "log"):
        (root / part).mkdir(parents=True)
    (root / "config/.opt-out-from-anonymous-statistics").touch()
    unified = "no" if Path("/sys/fs/cgroup/memory").exists() else "yes"
    others = "\n".join(f"    {part} = no" for part in _HOST_PARTS.split())
    (root / "netdata.conf").write_text(_NETDATA.format(root=root, port=port, unified=unified, others=others))
    words = ["netdata", "-D", "-c", f"{root}/netdata.conf", "-P", f"{root}/pid"]
    command = account.command(words, docker.parent)
    with _running(account, command, root / "output", DOCKER_HOST=f"unix://{docker.socket}", DO_NOT_TRACK="1"):
        charts = f"http://127.0.0.1:{port}/api/v1/charts"
        yield Watcher("netdata", account, _seen(charts, rb'"id": *"cgroup_[^"]*\.cpu"'))


@contextlib.contextmanager
def cadvisor(docker: Docker, program: Path, *more: str) -> Iterator[Watcher]:
    """cAdvisor with its defaults (housekeeping each second), for that dockerd's containers and the host."""
    account = Account(docker.parent, "cadvisor")
    port = _free_port()
    words = [str(program), "-listen_ip=127.0.0.1", f"-port={port}", f"-docker=unix://{docker.socket}",
             "-docker_only=true", "-containerd=/nowhere", "-podman=unix:///nowhere", "-housekeeping_interval=1s",
             *more]  # fmt: skip
    log = docker.root / "cadvisor.log"
    with _running(account, account.command(words, docker.parent), log):
        page = f"http://127.0.0.1:{port}/metrics"
        pattern = rb'^container_memory_usage_bytes\{.*[{,]name="[^"]'
        yield Watcher("cAdvisor", account, _seen(page, pattern), lambda: _fetch(page), asks=True)


@contextlib.contextmanager
def node_exporter(docker: Docker) -> Iterator[Watcher]:
    """Node Exporter with its defaults: the host's counters alone, at a scrape."""
    account = Account(docker.parent, "node-exporter")
    port = _free_port()
    words = ["prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{port}"]
    with _running(account, account.command(words), docker.root / "node.log"):
        page = f"http://127.0.0.1:{port}/metrics"
        yield Watcher("node_exporter", account, _seen(page, rb"^node_time_seconds"), lambda: _fetch(page))
