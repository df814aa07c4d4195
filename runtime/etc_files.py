"""The text of a container's /etc/hosts and /etc/resolv.conf, as Docker writes them (hosts(5), resolv.conf(5))."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from runtime.config import HostConfig
from runtime.errors import BadRequest

__all__ = ["host_resolvers", "hosts_text", "resolv_conf_text"]

_STANDARD_HOSTS = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
#: What a container asks when the host has only resolvers that it cannot reach; Docker's choice.
_PUBLIC_RESOLVERS = ("8.8.8.8", "8.8.4.4")
#: systemd-resolved's stub listens on loopback; behind it stand the real servers.
_SYSTEMD_STUB = "127.0.0.53"
_DIRECTIVE = re.compile(r"^\s*(nameserver|search|domain|options)\s+(.*?)\s*$")


def hosts_text(
    addresses: Sequence[str],
    hostname: str,
    domainname: str = "",
    extra_hosts: Sequence[str] = (),
    host_gateway: str = "",
    host_network: Path | None = None,
) -> str:
    """/etc/hosts: localhost, ``--add-host``, and the container's own name at each of its addresses.

    ``host_gateway`` stands for the word ``host-gateway``. ``host_network``: the host's file, whose text a
    container on the host's network gets. Raises BadRequest for an entry that is not ``name:address``.
    """
    text = _STANDARD_HOSTS if host_network is None else host_network.read_text(errors="replace")
    lines = [_extra_host(entry, host_gateway) for entry in extra_hosts]
    names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    lines += [f"{address}\t{names}\n" for address in addresses]
    return text + "".join(lines)


def _extra_host(entry: str, host_gateway: str) -> str:
    name, _, address = entry.replace("=", ":", 1).partition(":")
    if address == "host-gateway":
        address = host_gateway
    try:
        ip_address(address.strip("[]"))
    except ValueError as error:
        raise BadRequest(f'invalid IP address in add-host: "{address}"') from error
    if not name or any(mark.isspace() for mark in entry):
        raise BadRequest(f'bad format for add-host: "{entry}"')
    return f"{address.strip('[]')}\t{name}\n"


def resolv_conf_text(
    host: HostConfig,
    nameserver: str = "",
    host_file: Path = Path("/etc/resolv.conf"),
    systemd_file: Path = Path("/run/systemd/resolve/resolv.conf"),
) -> str:
    """/etc/resolv.conf: the container's own settings, the network's resolver, else the host's settings.

    ``nameserver``: the embedded DNS server of a user-defined network, which comes before everything but
    cannot be with network mode ``host``. Loopback servers of the host are left out: a container has another
    loopback.
    """
    servers, search, options = _host_settings(host_file, systemd_file)
    if host.network_mode != "host":
        servers = [server for server in servers if not _is_loopback(server)] or list(_PUBLIC_RESOLVERS)
    if host.dns:
        servers = [_checked(server) for server in host.dns]
    if nameserver:
        servers = [nameserver]
        options = [*(word for word in options if not word.startswith("ndots:")), "ndots:0"]
    search = list(host.dns_search) if host.dns_search else search
    options = list(host.dns_options) if host.dns_options else options
    lines = [f"nameserver {server}" for server in servers]
    if search and search != ["."]:
        lines.append(f"search {' '.join(search)}")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "\n".join(lines) + "\n"


def host_resolvers(
    host_file: Path = Path("/etc/resolv.conf"),
    systemd_file: Path = Path("/run/systemd/resolve/resolv.conf"),
) -> list[str]:
    """The host's DNS servers, loopback ones included: for questions that the host itself asks."""
    return _host_settings(host_file, systemd_file)[0] or list(_PUBLIC_RESOLVERS)


def _host_settings(host_file: Path, systemd_file: Path) -> tuple[list[str], list[str], list[str]]:
    found = _parse(host_file)
    if found[0] == [_SYSTEMD_STUB] and systemd_file.exists():
        return _parse(systemd_file)
    return found


def _parse(path: Path) -> tuple[list[str], list[str], list[str]]:
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        text = ""
    for line in text.splitlines():
        if match := _DIRECTIVE.match(line):
            words = match[2].split()
            if match[1] == "nameserver":
                servers += words[:1]
            elif match[1] == "options":
                options += words
            else:
                search = words
    return servers, search, options


def _is_loopback(server: str) -> bool:
    try:
        return ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return True  # not an address: of no use to anybody


def _checked(server: str) -> str:
    try:
        return str(ip_address(server))
    except ValueError as error:
        raise BadRequest(f"invalid DNS server {server!r}: expected an IP address") from error
