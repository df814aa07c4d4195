"""Choosing subnets for networks and addresses for containers (IPv4). Pure: the kernel's routes come in as data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from itertools import chain

from runtime.errors import BadRequest, Forbidden

__all__ = ["AddressPool", "free_subnet", "overlapping", "parse_address", "parse_subnet"]

#: Where automatic subnets come from: apart from Docker's 172.17-31, podman's 10.88-89, Kubernetes's usual ones.
_DEFAULT_BRIDGE_POOL = (IPv4Network("10.208.0.0/12"), 16)
_USER_POOL = (IPv4Network("10.176.0.0/12"), 22)
_FALLBACK_POOLS = ((IPv4Network("172.16.0.0/12"), 20), (IPv4Network("192.168.0.0/16"), 24))


def parse_subnet(text: str) -> IPv4Network:
    """A subnet in CIDR form. Raises BadRequest."""
    try:
        subnet = IPv4Network(text)
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise BadRequest(f"invalid subnet {text}: expected an IPv4 network such as 172.22.16.0/24") from error
    if "/" not in text or subnet.prefixlen > 30:
        raise BadRequest(f"invalid subnet {text}: expected a prefix length of at most 30")
    return subnet


def parse_address(text: str, what: str = "address") -> IPv4Address:
    """An IPv4 address. Raises BadRequest, with ``what`` in the text."""
    try:
        return IPv4Address(text)
    except AddressValueError as error:
        raise BadRequest(f"invalid {what} {text}: expected an IPv4 address") from error


def overlapping(subnet: IPv4Network, taken: Iterable[IPv4Network]) -> IPv4Network | None:
    """The first of ``taken`` that shares addresses with ``subnet``; a default route does not count."""
    return next((other for other in taken if other.prefixlen and subnet.overlaps(other)), None)


def free_subnet(taken: Iterable[IPv4Network], default_bridge: bool = False) -> IPv4Network:
    """A private subnet that overlaps nothing. Raises BadRequest when every pool is used up."""
    used = [other for other in taken if other.prefixlen]
    for pool, prefix in (_DEFAULT_BRIDGE_POOL if default_bridge else _USER_POOL, *_FALLBACK_POOLS):
        for subnet in pool.subnets(new_prefix=prefix):
            if overlapping(subnet, used) is None:
                return subnet
    raise BadRequest("could not find an available, non-overlapping IPv4 address pool among the defaults")


class AddressPool:
    """The addresses of one network. Free ones are given in turn, so that one just freed is not reused at once."""

    def __init__(
        self, subnet: IPv4Network, reserved: Iterable[IPv4Address], ip_range: IPv4Network | None = None
    ) -> None:
        self.subnet = subnet
        self._range = ip_range or subnet
        self._reserved = {subnet.network_address, subnet.broadcast_address, *reserved}
        self._used: set[IPv4Address] = set()
        self._next = int(self._range.network_address)

    def take(self, address: IPv4Address | None = None) -> IPv4Address | None:
        """This address, or the next free one; None when there is none. Raises BadRequest, Forbidden."""
        if address is None:
            address = next(self._free(), None)
            if address is None:
                return None
            self._next = int(address) + 1
        elif address not in self.subnet:
            raise BadRequest(f"Requested address {address} is out of range: not in {self.subnet}")
        elif address in self._used or address in self._reserved:
            raise Forbidden("Address already in use")
        self._used.add(address)
        return address

    def give_back(self, address: IPv4Address) -> None:
        """Free an address; nothing happens if it was free."""
        self._used.discard(address)

    def restore(self, address: IPv4Address) -> None:
        """Mark an address as used that was given before a restart."""
        self._used.add(address)
        if address in self._range:
            self._next = max(self._next, int(address) + 1)

    def _free(self) -> Iterator[IPv4Address]:
        first, last = int(self._range.network_address), int(self._range.broadcast_address)
        start = self._next if first <= self._next <= last else first
        for number in chain(range(start, last + 1), range(first, start)):
            address = IPv4Address(number)
            if address not in self._used and address not in self._reserved:
                yield address
