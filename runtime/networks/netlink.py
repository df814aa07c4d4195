"""Network interfaces and namespaces, through netlink: bridges, veth pairs, addresses, routes.

All methods of ``Interfaces`` must be called from one thread: it enters namespaces for a moment, and its netlink
sockets belong to it. What to make is ``network``'s decision.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from runtime.mounts import MS_BIND, mount, unmount

__all__ = ["Interfaces", "Namespace", "VethSpec"]

log = logging.getLogger(__name__)

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class VethSpec:
    """One container's connection to one bridge."""

    bridge: str
    host_interface: str
    interface: str  #: in the container: ``eth0``
    mac: str
    address: IPv4Address
    subnet: IPv4Network
    gateway: IPv4Address | None  #: makes the default route; None for none
    mtu: int = 0  #: 0 for the kernel's default
    hairpin: bool = False  #: the container may reach itself through a port that it publishes


class Namespace:
    """A network namespace that was entered; its netlink socket stays in it."""

    def __init__(self, ipr: Any, fd: int) -> None:
        self._ipr = ipr
        self.fd = fd

    def loopback_up(self) -> None:
        """Bring ``lo`` up (always index 1)."""
        self._ipr.link("set", index=1, state="up")

    def configure(self, veth: VethSpec) -> None:
        """Address and routes of an interface that was moved in."""
        index = _peer_index(veth.host_interface) or self._ipr.link_lookup(ifname=veth.interface)[0]
        self._ipr.addr("add", index=index, address=str(veth.address), prefixlen=veth.subnet.prefixlen)
        self._ipr.link("set", index=index, state="up")
        if veth.gateway is not None:
            self._ipr.route("add", dst="default", gateway=str(veth.gateway), oif=index)

    def default_route(self, gateway: IPv4Address) -> None:
        """Make or replace the default route."""
        self._ipr.route("replace", dst="default", gateway=str(gateway))


class Interfaces:
    """The host's interfaces and the namespaces made from them."""

    def __init__(self) -> None:
        self._ipr = IPRoute()
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close the netlink socket."""
        self._ipr.close()
        os.close(self._home)

    def subnets_in_use(self) -> list[tuple[IPv4Network, str]]:
        """Every IPv4 route's destination in the main table and the interface it leads to; not the default."""
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in self._ipr.get_links()}
        found = []
        for route in self._ipr.get_routes(family=2, table=254):
            destination = route.get_attr("RTA_DST")
            if destination:
                subnet = IPv4Network(f"{destination}/{route['dst_len']}", strict=False)
                found.append((subnet, names.get(route.get_attr("RTA_OIF")) or ""))
        return found

    def exists(self, name: str) -> bool:
        """Whether an interface of this name is there."""
        return self._index(name) is not None

    def ensure_bridge(self, name: str, gateway: IPv4Address, subnet: IPv4Network, mtu: int = 0) -> None:
        """Make a bridge with this address, or bring the one that is there into this state."""
        index = self._index(name)
        if index is None:
            hardware = "02:42:" + ":".join(f"{byte:02x}" for byte in os.urandom(4))
            # an own hardware address: a bridge without one takes that of a port, which comes and goes
            self._ipr.link("add", ifname=name, kind="bridge", address=hardware)
            index = self._index(name)
        wanted = (str(gateway), subnet.prefixlen)
        present = {
            (entry.get_attr("IFA_ADDRESS"), entry["prefixlen"])
            for entry in self._ipr.get_addr(index=index, family=2)
        }
        for address, prefix in present - {wanted}:
            self._ipr.addr("del", index=index, address=address, prefixlen=prefix)
        if wanted not in present:
            self._ipr.addr(
                "add", index=index, address=str(gateway), prefixlen=subnet.prefixlen,
                broadcast=str(subnet.broadcast_address),
            )  # fmt: skip
        self._ipr.link("set", index=index, state="up", **({"mtu": mtu} if mtu else {}))

    def delete(self, name: str) -> bool:
        """Delete an interface (a veth's other end goes with it); False if there is none."""
        index = self._index(name)
        if index is None:
            return False
        try:
            self._ipr.link("del", index=index)
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise
            return False
        return True

    @contextmanager
    def new_namespace(self, path: Path) -> Iterator[Namespace]:
        """Make a namespace, keep it at ``path`` by a bind mount, and give its handle."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        if _libc.unshare(_CLONE_NEWNET):
            raise _os_error("make a network namespace")
        try:
            mount("/proc/thread-self/ns/net", path, flags=MS_BIND)
            _set_sysctl("ipv6/conf/default/disable_ipv6", "1")
            _set_sysctl("ipv6/conf/all/disable_ipv6", "1")
            inside = IPRoute()
        finally:
            self._come_home()
        with self._handle(path, inside) as namespace:
            yield namespace

    @contextmanager
    def namespace(self, path: Path) -> Iterator[Namespace]:
        """The handle of a namespace made before. Raises OSError if it is not there."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(fd, _CLONE_NEWNET):
                raise _os_error(f"enter network namespace {path}")
            try:
                inside = IPRoute()
            finally:
                self._come_home()
        finally:
            os.close(fd)
        with self._handle(path, inside) as namespace:
            yield namespace

    @contextmanager
    def _handle(self, path: Path, inside: Any) -> Iterator[Namespace]:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield Namespace(inside, fd)
        finally:
            os.close(fd)
            inside.close()

    def _come_home(self) -> None:
        if _libc.setns(self._home, _CLONE_NEWNET):
            raise _os_error("return to the host's network namespace")

    def plug(self, veth: VethSpec, namespace: Namespace) -> None:
        """Make the pair: one end on the bridge, the other in the namespace, configured."""
        extra = {"mtu": veth.mtu} if veth.mtu else {}
        self._ipr.link(
            "add",
            ifname=veth.host_interface,
            kind="veth",
            state="up",
            master=self._index(veth.bridge),
            peer={"ifname": veth.interface, "net_ns_fd": namespace.fd, "address": veth.mac, **extra},
            **extra,
        )
        if veth.hairpin:
            self._ipr.brport("set", index=self._index(veth.host_interface), mode=1)
        namespace.configure(veth)

    @staticmethod
    def remove_namespace(path: Path) -> None:
        """Let a namespace go; nothing happens if it is not there."""
        while unmount(path):
            pass
        path.unlink(missing_ok=True)

    @staticmethod
    def _index(name: str) -> int | None:
        try:
            return socket.if_nametoindex(name)  # one ioctl; a netlink dump costs a hundred times that
        except OSError:
            return None


def _peer_index(host_interface: str) -> int | None:
    """The index of a pair's other end, from sysfs; None where that shows another namespace's interfaces."""
    try:
        return int(Path(f"/sys/class/net/{host_interface}/iflink").read_text())
    except FileNotFoundError:
        return None


def _os_error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def _set_sysctl(name: str, value: str) -> None:
    """Set a ``net.`` sysctl of the namespace the thread is in."""
    path = Path("/proc/sys/net") / name
    try:
        path.write_text(value)
    except FileNotFoundError:
        log.debug("%s is not there: a kernel without IPv6", path)
